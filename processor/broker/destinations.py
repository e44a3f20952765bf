"""What may be a destination of history: an exchange or a queue that is the user's own.

AMQP does not tell what an exchange is bound to, so only names can be refused here. Behind that, workers take in nothing
that carries the header of a replay (``delivery.refuse_replayed``).
"""

from __future__ import annotations

from holdfast.processor.broker.channel import Channel, broker_errors
from holdfast.processor.broker.connection import Connection
from holdfast.processor.broker.topology import Topology, declare_events
from holdfast.processor.core.destination import Destination
from holdfast.schemas.errors import ReplayRefused
from holdfast.schemas.identifiers import check_name

_OURS = "holdfast."
"""How the names of all exchanges and queues begin that belong to apps."""


def refuse_intake(app: str, destination: Destination) -> None:
    """Raise ``ReplayRefused`` for what belongs to an app, but for the exchange of the event feed of ``app`` itself.

    Raises ``InvalidMessage`` for what can be no name.
    """
    to_queue = destination.queue is not None
    name = check_name("queue" if to_queue else "exchange", destination.queue or destination.exchange)
    if name.startswith(_OURS) and destination != Destination(Topology(app).events):
        raise ReplayRefused(
            f"{destination} is for apps, and history never goes where an instance could get it: name an exchange or a "
            f"queue of your own, or {Topology(app).events}, the exchange of the event feed"
        )


async def require(connection: Connection, app: str, destination: Destination) -> None:
    """Raise ``BrokerError`` unless a destination is there; the exchange of the app's event feed is made."""
    if destination.exchange == Topology(app).events:
        await declare_events(connection, Topology(app))
        return
    channel = await connection.open(Channel())
    try:
        with broker_errors(f"cannot publish to {destination}"):
            if destination.queue is None:
                await channel.library.exchange_declare(destination.exchange, passive=True)
            else:
                await channel.library.queue_declare(destination.queue, passive=True)
    finally:
        await channel.close()
