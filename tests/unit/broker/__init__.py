"""What the broker's modules do without a broker."""
