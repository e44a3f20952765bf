"""Permits: follow the cases of a real event log."""
