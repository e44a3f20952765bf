"""What the services of a host do, without a broker."""
