"""Workflows in a simulation: the real engine, a store in memory, and time that passes when told."""
