"""Small workflows, one thing each, with a scenario that shows them at work."""
