"""The product as its user meets it, at the command line."""
