"""Projections that are ready to be registered: what is where, how long steps take, which ways instances went."""
