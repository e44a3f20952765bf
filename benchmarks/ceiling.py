"""The ceiling: the order workload as one hand-written loop without an engine.

It does what any program must do that takes an order's two messages from RabbitMQ, keeps its history and
its state in Postgres and sends its message: an inbox row a message, the instance's row read and locked,
eight events, two snapshot writes, an outbox row, one commit for up to a hundred messages, the ack after
the commit, and a relay that publishes with confirms. There are no activities, no program, no types, no
leases and no recovery, so what it makes is what the servers and the drivers allow on the machine at hand.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections import deque
from collections.abc import Sequence
from importlib.resources import files
from typing import Any, LiteralString, cast
from uuid import UUID

import aiormq
import orjson
import psycopg
import uvloop
from aiormq import Channel
from aiormq.abc import DeliveredMessage
from pamqp.commands import Basic

from benchmarks.workload import PAID, PLACED, RESULT, SHIPPED, body
from holdfast.schemas.identifiers import digest, idempotency_key, outgoing_message_id, uuid7

APP = "ceiling"
QUEUE = "ceiling.00"
OUT_EXCHANGE = "ceiling.out"
GROUP = 100
"""How many messages commit together at most."""
PREFETCH = 4 * GROUP
EVENTS_A_MESSAGE = 4
HOST = UUID("018f0000-0000-7000-8000-000000000000")
PROGRAM = "0" * 64

LOCK: LiteralString = """
select correlation_key, instance_id, version, lock_token
from ceiling.instance_rows
where app = %b and correlation_key = any(%b::text[]) and not is_completed
order by correlation_key
for update
"""

WRITE: LiteralString = """
with member as materialized (
    select *
    from unnest(
        %(instance_id)b::uuid[], %(key)b::text[], %(message_id)b::text[], %(type)b::text[],
        %(digest)b::bytea[], %(version)b::bigint[], %(is_completed)b::boolean[], %(state)b::bytea[]
    ) as m (instance_id, key, message_id, type, digest, version, is_completed, state)
), inbox as (
    insert into ceiling.inbox (app, message_id, type, correlation_key, digest, verdict, instance_id, version)
    select %(app)b, message_id, type, key, digest, 'applied', instance_id, version
    from member
), written as (
    insert into ceiling.instance_rows as r (
        instance_id, app, workflow, program_hash, correlation_key, start_message_id, execution_status, outcome,
        is_initialized, is_completed, last_machine, lock_owner, lock_token, version, last_xid
    )
    select
        instance_id, %(app)b, 'order', %(program)b, key, message_id,
        case when is_completed then 'closed' else 'idle' end, case when is_completed then 'completed' end,
        true, is_completed, 'here', case when not is_completed then %(host)b::uuid end, 1, version, pg_current_xact_id()
    from member
    on conflict (instance_id) do update set
        execution_status = excluded.execution_status, outcome = excluded.outcome,
        is_completed = excluded.is_completed, lock_owner = excluded.lock_owner,
        version = excluded.version, last_updated_time = now(), last_xid = excluded.last_xid
    where r.version = excluded.version - 4
    returning 1
), states as (
    insert into ceiling.instance_states (instance_id, state)
    select instance_id, state
    from member
    on conflict (instance_id) do update set state = excluded.state
), events as (
    insert into ceiling.events (epoch, instance_id, version, type, data, metadata)
    select 1, instance_id, version, type, data::json, '{}'
    from unnest(
        %(event_instance_id)b::uuid[], %(event_version)b::bigint[], %(event_type)b::text[], %(event_data)b::text[]
    ) as e (instance_id, version, type, data)
), outbox as (
    insert into ceiling.outbox (
        message_id, app, instance_id, host_id, exchange, routing_key, type, correlation_key, body
    )
    select message_id, %(app)b, instance_id, %(host)b::uuid, %(exchange)b, type, type, key, body
    from unnest(
        %(out_id)b::text[], %(out_instance_id)b::uuid[], %(out_type)b::text[], %(out_key)b::text[],
        %(out_body)b::bytea[]
    ) as o (message_id, instance_id, type, key, body)
)
select count(*) from written
"""

PUBLISHED: LiteralString = "delete from ceiling.outbox where message_id = any(%b::text[])"


class Intake:
    """Deliveries that wait for their group."""

    def __init__(self) -> None:
        self._waiting: deque[DeliveredMessage] = deque()
        self._arrived = asyncio.Event()

    async def deliver(self, message: DeliveredMessage) -> None:
        """Take one delivery in; the consumer's callback."""
        self._waiting.append(message)
        self._arrived.set()

    async def group(self) -> list[DeliveredMessage]:
        """Return the oldest deliveries in order, one a key and ``GROUP`` at most; wait for the first."""
        while not self._waiting:
            self._arrived.clear()
            await self._arrived.wait()
        keys: set[str] = set()
        messages: list[DeliveredMessage] = []
        while self._waiting and len(messages) < GROUP:
            key = _key(self._waiting[0])
            if key in keys:
                break
            keys.add(key)
            messages.append(self._waiting.popleft())
        return messages


class Relay:
    """Publishes outbox rows after their commit and deletes the confirmed ones."""

    def __init__(self, connection: psycopg.AsyncConnection[Any], channel: Channel) -> None:
        self._connection = connection
        self._channel = channel
        self._rows: asyncio.Queue[Sequence[tuple[str, str, bytes]]] = asyncio.Queue()

    def hand_over(self, rows: Sequence[tuple[str, str, bytes]]) -> None:
        """Take committed rows over: message id, key and body of each."""
        self._rows.put_nowait(rows)

    async def run(self) -> None:
        """Publish what is handed over, for ever."""
        while True:
            rows = await self._rows.get()
            await asyncio.gather(*(self._publish(*row) for row in rows))
            await self._connection.execute(PUBLISHED, ([row[0] for row in rows],))
            self._rows.task_done()

    async def drained(self) -> None:
        """Wait until everything handed over is published."""
        await self._rows.join()

    async def _publish(self, message_id: str, key: str, content: bytes) -> None:
        properties = Basic.Properties(
            content_type="application/json",
            delivery_mode=2,
            message_type=SHIPPED,
            message_id=message_id,
            correlation_id=key,
        )
        await self._channel.basic_publish(
            content, exchange=OUT_EXCHANGE, routing_key=SHIPPED, properties=properties, mandatory=True, wait=False
        )


class Group:
    """The rows of one commit, column by column as ``unnest`` takes them."""

    def __init__(self) -> None:
        self.columns: dict[str, list[Any]] = {
            name: []
            for name in (
                *("instance_id", "key", "message_id", "type", "digest", "version", "is_completed", "state"),
                *("event_instance_id", "event_version", "event_type", "event_data"),
                *("out_id", "out_instance_id", "out_type", "out_key", "out_body"),
            )
        }
        self.outgoing: list[tuple[str, str, bytes]] = []

    def start(self, message: DeliveredMessage) -> None:
        """Add a first message: the order starts, does three activities and waits."""
        content = orjson.loads(message.body)
        instance_id = uuid7(time.time_ns() // 1_000_000, os.urandom(10))
        started = {
            "workflow": "order",
            "program_hash": PROGRAM,
            "correlation_key": content["order_id"],
            "message_id": message.header.properties.message_id,
            "message_type": PLACED,
            "body": content,
        }
        events = [("InstanceStarted", started), *_activities(instance_id, 3)]
        self._add(message, instance_id, 0, events, {"placed": content, "results": [RESULT] * 3})

    def finish(self, message: DeliveredMessage, instance_id: UUID, version: int) -> None:
        """Add a second message: the order goes on, does two activities, sends its message and completes."""
        content = orjson.loads(message.body)
        received = {
            "bookmark": "paid",
            "closes": ["paid"],
            "message_id": message.header.properties.message_id,
            "message_type": PAID,
            "correlation_key": content["order_id"],
            "body": content,
        }
        events = [
            ("MessageReceived", received),
            *_activities(instance_id, 2),
            ("InstanceCompleted", {"result": RESULT}),
        ]
        self._add(message, instance_id, version, events, {"placed": content, "paid": content, "results": [RESULT] * 5})
        columns = self.columns
        message_id = outgoing_message_id(instance_id, version + EVENTS_A_MESSAGE, 0)
        key = _key(message)
        sent = body(key)
        columns["out_id"].append(message_id)
        columns["out_instance_id"].append(instance_id)
        columns["out_type"].append(SHIPPED)
        columns["out_key"].append(key)
        columns["out_body"].append(sent)
        self.outgoing.append((message_id, key, sent))

    def _add(
        self,
        message: DeliveredMessage,
        instance_id: UUID,
        version: int,
        events: Sequence[tuple[str, dict[str, Any]]],
        variables: dict[str, Any],
    ) -> None:
        columns = self.columns
        message_type = message.header.properties.message_type or ""
        key = _key(message)
        state = {"version": version + len(events), "correlation_key": key, "variables": variables}
        columns["instance_id"].append(instance_id)
        columns["key"].append(key)
        columns["message_id"].append(message.header.properties.message_id)
        columns["type"].append(message_type)
        columns["digest"].append(digest(message_type, key, message.body))
        columns["version"].append(version + len(events))
        columns["is_completed"].append(message_type == PAID)
        columns["state"].append(orjson.dumps(state))
        columns["event_instance_id"] += [instance_id] * len(events)
        columns["event_version"] += range(version + 1, version + len(events) + 1)
        columns["event_type"] += [event_type for event_type, _ in events]
        columns["event_data"] += [orjson.dumps(data).decode() for _, data in events]


def _activities(instance_id: UUID, count: int) -> list[tuple[str, dict[str, Any]]]:
    return [
        (
            "ActivityCompleted",
            {
                "where": {"frame": "0", "step": step, "line": step},
                "activity": "work",
                "idempotency_key": idempotency_key(instance_id, "0", step, 1, "work"),
                "attempts": 1,
                "result": RESULT,
            },
        )
        for step in range(count)
    ]


def _key(message: DeliveredMessage) -> str:
    return message.header.properties.correlation_id or ""


async def commit(connection: psycopg.AsyncConnection[Any], messages: Sequence[DeliveredMessage]) -> Group:
    """Write everything that belongs to a group of messages in one transaction and return it."""
    group = Group()
    async with connection.transaction():
        cursor = await connection.execute(LOCK, (APP, [_key(message) for message in messages]), prepare=True)
        living = {key: (instance_id, version) for key, instance_id, version, _ in await cursor.fetchall()}
        for message in messages:
            if message.header.properties.message_type == PLACED:
                group.start(message)
            else:
                group.finish(message, *living[_key(message)])
        constants = {"app": APP, "program": PROGRAM, "host": HOST, "exchange": OUT_EXCHANGE}
        cursor = await connection.execute(WRITE, group.columns | constants, prepare=True)
        if await cursor.fetchone() != (len(messages),):
            raise RuntimeError("an instance was changed by somebody else")
    return group


async def drain(database_url: str, amqp_url: str, orders: int) -> None:
    """Take the messages of ``orders`` orders from the queue; return when all are committed and published."""
    connection = await psycopg.AsyncConnection.connect(database_url, autocommit=True)
    relay_connection = await psycopg.AsyncConnection.connect(database_url, autocommit=True)
    broker = await aiormq.connect(amqp_url)
    async with connection, relay_connection:
        channel = await broker.channel(publisher_confirms=False)
        relay = Relay(relay_connection, cast("Channel", await broker.channel(publisher_confirms=True)))
        intake = Intake()
        await channel.basic_qos(prefetch_count=PREFETCH)
        await channel.basic_consume(QUEUE, intake.deliver)
        async with asyncio.TaskGroup() as tasks:
            relaying = tasks.create_task(relay.run())
            remaining = 2 * orders
            while remaining:
                messages = await intake.group()
                group = await commit(connection, messages)
                # One consumer and groups in order: every delivery up to the last one is settled.
                await channel.basic_ack(messages[-1].delivery_tag or 0, multiple=True, wait=False)
                if group.outgoing:
                    relay.hand_over(group.outgoing)
                remaining -= len(messages)
            await relay.drained()
            relaying.cancel()
    await broker.close()


def ddl() -> bytes:
    """Return the DDL of the ceiling's tables."""
    return files("benchmarks").joinpath("ceiling.sql").read_bytes()


if __name__ == "__main__":
    uvloop.run(drain(os.environ["HOLDFAST_DATABASE_URL"], os.environ["HOLDFAST_AMQP_URL"], int(sys.argv[1])))
