"""What a test may do to a server that was started for it, wherever that runs."""

from typing import Literal, Protocol

StopMode = Literal["orderly", "kill"]
DatabaseStopMode = Literal["fast", "immediate"]


class Broker(Protocol):
    """A RabbitMQ that belongs to whoever started it."""

    url: str

    def start(self) -> None:
        """Start the node and wait until it serves clients."""

    def stop(self, mode: StopMode = "orderly") -> None:
        """Stop the node and keep its data.

        A node that is killed half a second after a queue was declared may have forgotten how to find the queue.
        """

    def control(self, *arguments: str) -> None:
        """Give the node a command of `rabbitmqctl`."""

    def close(self) -> None:
        """End the node and remove its data."""


class Database(Protocol):
    """A Postgres that belongs to whoever started it."""

    url: str
    """Leads to the maintenance database."""

    def start(self) -> None:
        """Start the server, on new data the first time, and wait until it takes connections."""

    def stop(self, mode: DatabaseStopMode = "fast") -> None:
        """Stop the server and keep its data: in order, or `immediate`, as if its machine had failed."""

    def restart(self, mode: DatabaseStopMode = "fast") -> None:
        """Stop and start the server; open connections are lost."""

    def close(self) -> None:
        """End the server and remove its data."""
