"""Tests that kill processes, servers and connections."""
