"""What a RabbitMQ node needs to serve an app, as the files that the node reads.

The workers declare exchanges and queues with their arguments themselves. A plugin has to be enabled, a time-out to be
raised and the order of bindings to be kept before they connect; all is written here, from what the workers go by.
"""

from __future__ import annotations

from collections.abc import Sequence

from holdfast.processor.broker.topology import PLUGIN
from holdfast.schemas.settings import Settings

DISK_FREE = "2GB"
"""The room on the disk with less of which a node takes in nothing, rather than fail while it writes a queue's log."""

CONSUMER_TIMEOUT = 1800.0
"""Seconds that a delivery may stay unacked at least: what RabbitMQ grants if nothing is configured."""

ADVANCED = "[{rabbit, [{default_worker_pool_size, 1}]}].\n"
"""The file ``advanced.config``: bindings are recovered one after the other, in the order of the partitions' names.

With several workers, as many as there are cores, a node that starts now and then binds two partitions in another order
than they were bound in at first, and the keys of both change places.
"""

OWN = "Written by holdfast broker-config, and written anew when that is run again."
"""What the first line of a file says that may be overwritten."""


def files(
    settings: Settings, *, plugins: Sequence[str] = (), nodes: Sequence[str] = (), memory: int | None = None
) -> dict[str, str]:
    """Return the text of all files by their names, each with a first line that says where it comes from."""
    return {
        "enabled_plugins": f"%% {OWN}\n{enabled_plugins(plugins)}",
        "rabbitmq.conf": f"# {OWN}\n{node_settings(settings, nodes, memory)}",
        "advanced.config": f"%% {OWN}\n{ADVANCED}",
    }


def is_own(text: str) -> bool:
    """Tell whether the text of a file is one that ``files`` gave."""
    return text.partition("\n")[0].endswith(OWN)


def enabled_plugins(further: Sequence[str] = ()) -> str:
    """Return the file ``enabled_plugins``: the exchange that partitions take, and ``further`` ones."""
    return f"[{','.join((PLUGIN, *further))}].\n"


def node_settings(settings: Settings, nodes: Sequence[str] = (), memory: int | None = None) -> str:
    """Return the file ``rabbitmq.conf``, of each of these ``nodes`` if they are to form a cluster.

    ``memory`` is how many bytes a node has, where it cannot find that out itself, as in a container.
    """
    values: dict[str, object] = {
        # A worker asks for its own; this holds for whoever asks for none.
        "heartbeat": settings.heartbeat,
        # In milliseconds. No delivery to a worker is to outlive it.
        "consumer_timeout": int(1000 * max(CONSUMER_TIMEOUT, 2 * settings.ack_deadline)),
        "disk_free_limit.absolute": DISK_FREE,
    }
    if memory is not None:
        # Publishers are held up at a share of this.
        values["total_memory_available_override_value"] = memory
    if nodes:
        values["cluster_formation.peer_discovery_backend"] = "classic_config"
        values |= {f"cluster_formation.classic_config.nodes.{n}": node for n, node in enumerate(nodes, start=1)}
        # Nodes that are cut off from most others stop, rather than go on by themselves.
        values["cluster_partition_handling"] = "pause_minority"
        # Partitions are led by all nodes, not by the one that the first worker was connected to.
        values["queue_leader_locator"] = "balanced"
    return "".join(f"{name} = {value}\n" for name, value in values.items())
