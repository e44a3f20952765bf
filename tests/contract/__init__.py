"""One suite per port, passed by every adapter of it."""
