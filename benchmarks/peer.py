"""What the log benchmark stands beside: the library ``eventsourcing``, with events that hold as much."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from eventsourcing.application import Application
from eventsourcing.domain import Aggregate, event
from psycopg.conninfo import conninfo_to_dict

from benchmarks.workload import RESULT, padding

SAVED = 400
"""Events that are saved at once; the library's pipeline comes to a halt over some thousands."""
PAGE = 5_000


class Order(Aggregate):
    """An order as an aggregate: its events have the fields of Holdfast's."""

    @event("Started")
    def __init__(self, order_id: str, body: dict[str, str]) -> None:
        self.order_id = order_id
        self.body = body
        self.done = 0

    @event("Completed")
    def complete(self, activity: dict[str, Any]) -> None:
        self.done += 1
        self.result = activity["result"]


class Peer:
    """An application of the library on a database of its own, with its default transcoder."""

    def __init__(self, url: str) -> None:
        given: dict[str, Any] = conninfo_to_dict(url)
        self._application: Application[UUID] = Application(
            env={
                "PERSISTENCE_MODULE": "eventsourcing.postgres",
                "POSTGRES_DBNAME": str(given.get("dbname", "postgres")),
                "POSTGRES_HOST": str(given.get("host", "")),
                "POSTGRES_PORT": str(given.get("port", "5432")),
                "POSTGRES_USER": str(given.get("user", "postgres")),
                "POSTGRES_PASSWORD": str(given.get("password", "none")),
            }
        )
        self._stream: UUID | None = None

    def write(self, stream: int, life: int, orders: int) -> None:
        """Write one stream of ``stream`` events, and ``orders`` of ``life`` events."""
        order = _order("order-00000000")
        self._stream = order.id
        for number in range(1, stream):
            order.complete(completed(order.order_id, number))
            if number % SAVED == 0:
                self._application.save(order)
        self._application.save(order)
        waiting: list[Order] = []
        for number in range(orders):
            order = _order(f"order-{number:08}")
            for step in range(1, life):
                order.complete(completed(order.order_id, step))
            waiting.append(order)
            if len(waiting) * life >= SAVED:
                self._application.save(*waiting)
                waiting.clear()
        self._application.save(*waiting)

    def replay(self) -> int:
        """Read the long stream and fold it into its aggregate."""
        if self._stream is None:
            raise ValueError("there is nothing to replay")
        aggregate: Order = self._application.repository.get(self._stream)
        return aggregate.version

    def read(self) -> int:
        """Read and decode every event."""
        seen, start = 0, 1
        mapper = self._application.mapper
        while notifications := self._application.recorder.select_notifications(start, limit=PAGE):
            for notification in notifications:
                mapper.to_domain_event(notification)
            seen += len(notifications)
            start = notifications[-1].id + 1
        return seen

    def close(self) -> None:
        """Close its connections."""
        self._application.close()


def _order(order_id: str) -> Order:
    return Order(order_id=order_id, body={"order_id": order_id, "padding": padding(order_id)})


def completed(order_id: str, step: int) -> dict[str, Any]:
    """Return what an event of an order holds."""
    return {
        "where": {"frame": "0", "step": step % 9, "line": 60},
        "activity": "reserve",
        "idempotency_key": f"{order_id}/0/{step}/1/reserve",
        "attempts": 1,
        "result": RESULT,
    }
