"""From a message or a timer to a persistence point: routing, bursts, commits."""
