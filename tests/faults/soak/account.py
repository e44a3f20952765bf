"""The account of a soak: what was published against what came of it, by every witness there is."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, LiteralString

import psycopg

from tests.faults.soak.app import Settled
from tests.faults.soak.workload import Order
from tests.support.commands import holdfast
from tests.support.rabbitmq import take_all
from tests.support.workers import environment, eventually

APP = "soak"

TAKE_OVERS: LiteralString = """
    select count(*) from (
        select metadata ->> 'host' <> lag(metadata ->> 'host') over stream as changed
        from holdfast.events
        window stream as (partition by instance_id order by version)
    ) e where changed
"""
INSTANCES: LiteralString = """
    select correlation_key, workflow = 'packing', coalesce(outcome, execution_status), is_suspended
    from holdfast.instances
"""
LEFT: LiteralString = """
    select o.message_id, o.dead_reason, h.process_id, h.lease_expiration > now() as lives
    from holdfast.outbox o left join holdfast.hosts h using (host_id) order by o.sequence
"""
GAPS: LiteralString = """
    select count(*) from (
        select from holdfast.events group by instance_id having max(version) <> count(*)
    ) g
"""
TWICE: LiteralString = """
    select count(*) - count(distinct data ->> 'idempotency_key') from holdfast.events where type = 'ActivityCompleted'
"""


class Account:
    """The books of one soak; ``problems`` is empty if they balance."""

    def __init__(self, database_url: str, amqp_url: str, orders: Sequence[Order]) -> None:
        self.problems: list[str] = []
        self._database_url = database_url
        self._amqp_url = amqp_url
        self._env = environment(database_url, amqp_url)
        self._orders = {order.key: order for order in orders}

    @property
    def take_overs(self) -> int:
        """How often an instance went on in another host than before."""
        return int(self._rows(TAKE_OVERS)[0][0])

    def close(self, out_queue: str) -> None:
        """Compare everything; what workflows sent is taken out of a queue."""
        orders = self._orders
        wanted = Counter((key, False, "completed", False) for key in orders)
        wanted.update((key, True, "completed", False) for key, order in orders.items() if order.has_child)
        self._compare("instances", wanted, self._rows(INSTANCES))

        records = Counter((key, step) for key, order in orders.items() for step in ("placed", order.outcome))
        records.update((key, "packed") for key, order in orders.items() if order.has_child)
        self._compare("recorded rows", records, self._rows("select order_id, step from records"))

        self._verdicts()
        self._outbox()
        self._sent(out_queue)
        self._is(0, GAPS, "streams with a gap")
        self._is(0, TWICE, "results of activities that were persisted twice")
        verified = holdfast("verify", "--app", APP, env=self._env, timeout=600)
        if verified.returncode:
            self.problems.append(f"verify: {verified.stdout}{verified.stderr}")

    def _verdicts(self) -> None:
        """Every message has one final verdict, and here that is ``applied``; so have the two a subflow takes."""
        published = Counter(message_id for order in self._orders.values() for _, _, message_id in order.messages)
        applied = "select message_id from holdfast.inbox where verdict = 'applied' and message_id like 'order-%'"
        self._compare("applied messages", published, [message_id for (message_id,) in self._rows(applied)])
        children = sum(order.has_child for order in self._orders.values())
        wanted = {"applied": published.total() + 2 * children}
        for how in ("--count", "--tally"):
            counted = holdfast("messages", how, "--app", APP, "--json", env=self._env)
            lines = [json.loads(line) for line in counted.stdout.splitlines()]
            found = Counter[str]()
            for line in lines:
                found[line["verdict"]] += line["messages"]
            if found != wanted:
                self.problems.append(f"verdicts by {how}: {dict(found)} instead of {wanted}")

    def _outbox(self) -> None:
        """Everything is published in the end."""
        try:
            eventually("the outbox is empty", lambda: self._rows("select from holdfast.outbox") == [], 60)
        except AssertionError:
            left = self._rows(LEFT)
            self.problems.append(f"outbox: {len(left)} messages left: {left[:5]}")

    def _sent(self, out_queue: str) -> None:
        """Each order sent one message; the broker may have it twice, under the same id."""
        sent: dict[str | None, bytes] = {}
        for message in take_all(self._amqp_url, out_queue):
            message_id = message.header.properties.message_id
            if sent.setdefault(message_id, message.body) != message.body:
                self.problems.append(f"sent: two messages under the id {message_id}")
        settled = map(Settled.model_validate_json, sent.values())
        wanted = Counter((key, order.outcome) for key, order in self._orders.items())
        self._compare("sent messages", wanted, [(it.order_id, it.outcome) for it in settled])

    def _compare(self, what: str, wanted: Mapping[Any, int], found: Iterable[Any]) -> None:
        have = Counter(found)
        for title, difference in (("missing", Counter(wanted) - have), ("too many", have - Counter(wanted))):
            if difference:
                some = ", ".join(f"{it} ×{count}" for it, count in list(difference.items())[:5])
                self.problems.append(f"{what}: {difference.total()} {title}: {some}")

    def _is(self, wanted: int, query: LiteralString, what: str) -> None:
        ((found,),) = self._rows(query)
        if found != wanted:
            self.problems.append(f"{found} {what}")

    def _rows(self, query: LiteralString) -> list[Any]:
        with psycopg.connect(self._database_url) as connection:
            return connection.execute(query).fetchall()
