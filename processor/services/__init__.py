"""The loops of a worker: lease, detection, relay, consumers."""
