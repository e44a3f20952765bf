"""What happened, and the log that keeps it."""
