"""What a RabbitMQ node needs to serve an app, as the files that the node reads.

The workers declare exchanges and queues with their arguments themselves. A plugin has to be enabled and a time-out
to be raised before they connect; both are written here, from what the workers go by.
"""

from __future__ import annotations

from holdfast.processor.broker.topology import PLUGIN
from holdfast.schemas.settings import Settings

CONSUMER_TIMEOUT = 1800.0
"""Seconds that a delivery may stay unacked at least: what RabbitMQ grants if nothing is configured."""


def enabled_plugins(further: tuple[str, ...] = ()) -> str:
    """Return the file ``enabled_plugins``: the exchange that partitions take, and ``further`` ones."""
    return f"[{','.join((PLUGIN, *further))}].\n"


def node_settings(settings: Settings) -> str:
    """Return the file ``rabbitmq.conf``."""
    return "".join(
        f"{name} = {value}\n"
        for name, value in {
            # A worker asks for its own; this holds for whoever asks for none.
            "heartbeat": settings.heartbeat,
            # In milliseconds. No delivery to a worker is to outlive it.
            "consumer_timeout": int(1000 * CONSUMER_TIMEOUT),
        }.items()
    )
