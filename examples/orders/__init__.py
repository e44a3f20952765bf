"""Orders: reserve stock, wait for the payment, ship."""
