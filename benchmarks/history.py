"""The log benchmark: how fast events are read, folded and projected, beside the library ``eventsourcing``.

    ./dev bench --log [--events 100000] [--rounds 3] [--json FILE]

``README.md`` says what is measured and how.
"""

from __future__ import annotations

import gc
import secrets
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from uuid import UUID, uuid4

import psycopg
import uvloop
from psycopg import AsyncConnection

from benchmarks.peer import Peer
from benchmarks.workload import RESULT, order_ids, padding
from compose.local.services import Services
from holdfast import App, Projection, RecordedEvent, Transaction
from holdfast.events.log import Append, Expected
from holdfast.events.postgres import append_many, read_log, read_stream
from holdfast.events.types import (
    ActivityCompleted,
    BookmarkOpened,
    Event,
    FrameChange,
    InstanceCompleted,
    InstanceStarted,
    MessageReceived,
    MessageSent,
    Persisted,
    Where,
)
from holdfast.processor.projecting import rebuild
from holdfast.projections.instance import fold
from holdfast.schemas.postgres.migrate import migrate
from holdfast.schemas.settings import Settings

STREAM = 10_000
"""Events of the one long stream."""
PAGE = 5_000
"""Events that are read at once of the whole log, by both."""
GROUP = 40
"""Streams that are written in one transaction."""
HASH = "6a09e667f3bcc908" * 4

app = App("history")


@app.projection
class Latest(Projection):
    """One upsert an event, whatever it is."""

    create = """
        create table latest (
            instance_id uuid, version bigint, type text not null, recorded_at timestamptz not null,
            primary key (instance_id, version)
        )
    """

    async def happened(
        self,
        tx: Transaction,
        events: Sequence[
            InstanceStarted
            | ActivityCompleted
            | BookmarkOpened
            | MessageReceived
            | MessageSent
            | InstanceCompleted
            | Persisted
        ],
        recorded: Sequence[RecordedEvent],
    ) -> None:
        await tx.execute(
            """
            insert into latest
            select * from unnest(%b::uuid[], %b::bigint[], %b::text[], %b::timestamptz[])
            on conflict (instance_id, version) do update set type = excluded.type, recorded_at = excluded.recorded_at
            """,
            (
                [it.instance_id for it in recorded],
                [it.version for it in recorded],
                [type(event).__name__ for event in events],
                [it.recorded_at for it in recorded],
            ),
        )


def order(order_id: str) -> list[Event]:
    """Return the events of one order of the order workload: twelve of them."""
    body = {"order_id": order_id, "padding": padding(order_id)}
    here = Where("0", 4, 60)

    def done(step: int, activity: str) -> ActivityCompleted:
        return ActivityCompleted(
            where=Where("0", step, 56 + step),
            activity=activity,
            idempotency_key=f"{order_id}/0/{step}/1/{activity}",
            attempts=1,
            result=RESULT,
        )

    waiting = FrameChange(
        step=4, line=60, visits=1, program=HASH, set={"reserved": RESULT, "priced": RESULT, "invoiced": RESULT}
    )
    return [
        InstanceStarted(
            workflow="order",
            program_hash=HASH,
            correlation_key=order_id,
            message_id=f"OrderPlaced/{order_id}",
            message_type="OrderPlaced",
            body=body,
        ),
        *(done(step, activity) for step, activity in enumerate(("reserve", "price", "invoice"), 1)),
        BookmarkOpened(
            where=here, bookmark="0.4.1", kind="message", message_type="OrderPaid", correlation_key=order_id
        ),
        Persisted(reason="idle", frames={"0": waiting}, idle=True),
        MessageReceived(
            where=here,
            bookmark="0.4.1",
            closes=("0.4.1",),
            message_id=f"OrderPaid/{order_id}",
            message_type="OrderPaid",
            correlation_key=order_id,
            body=body,
        ),
        *(done(step, activity) for step, activity in enumerate(("book", "pack"), 5)),
        MessageSent(
            where=Where("0", 7, 63),
            message_id=f"{order_id}:8:0",
            message_type="OrderShipped",
            correlation_key=order_id,
            body=body,
        ),
        InstanceCompleted(result="rrrrr"),
        Persisted(reason="completed", ended=("0",)),
    ]


LIFE = len(order("order-00000000"))


def long_stream() -> list[Event]:
    """Return the events of one instance that goes round and round: activities, a wait, a message."""
    first, *round_ = order("order-00000000")[:-3]
    return [first, *(round_ * (STREAM // len(round_) + 1))][:STREAM]


async def write(url: str, events: int) -> UUID:
    """Fill the log, and return the id of the long stream."""
    metadata = {"app": app.name, "host": str(uuid4())}

    def appended(found: list[Event], instance_id: UUID | None = None) -> Append:
        return Append(instance_id=instance_id or uuid4(), expected=Expected.ANY, events=found, metadata=metadata)

    ids = list(order_ids(max(0, events - STREAM) // LIFE))
    stream = uuid4()
    async with await AsyncConnection.connect(url, autocommit=True) as connection:
        await append_many(connection, [appended(long_stream(), stream)])
        for at in range(0, len(ids), GROUP):
            await append_many(connection, [appended(order(order_id)) for order_id in ids[at : at + GROUP]])
        await connection.execute("vacuum (analyze, freeze) holdfast.events")
    return stream


async def fold_stream(url: str, stream: UUID) -> int:
    """Read one stream and fold it into an instance's state."""
    async with await AsyncConnection.connect(url, autocommit=True) as connection:
        events = [it.event async for it in read_stream(connection, stream)]
    return fold(events).version


async def read_whole(url: str) -> int:
    """Read and decode every event of the log."""
    async with await AsyncConnection.connect(url, autocommit=True) as connection:
        return sum([len(events) async for events in read_log(connection, limit=PAGE)])


async def project(url: str) -> int:
    """Rebuild the projection from the first event to the last, up to the swap."""
    _ = [progress async for progress in rebuild(app, "latest", Settings(database_url=url), restart=True)]
    with psycopg.connect(url) as connection:
        row = connection.execute("select count(*) from history_latest.latest").fetchone()
    return row[0] if row else 0


@dataclass(frozen=True)
class Rate:
    """Events a second, by the clock, and microseconds of the process's own time an event."""

    events: int
    per_second: float
    own_time: float


class Timer:
    """Measures how long a piece of work takes that handles some number of events."""

    def __init__(self) -> None:
        gc.collect()
        self._clock, self._own = time.perf_counter(), time.process_time()

    def rate(self, events: int) -> Rate:
        clock, own = time.perf_counter() - self._clock, time.process_time() - self._own
        return Rate(events, events / clock, own / events * 1e6)


async def measure(services: Services, *, events: int, rounds: int) -> dict[str, list[Rate]]:
    """Measure everything once a round, in turns, so that what disturbs the machine disturbs all of it alike."""
    names = [f"holdfast_benchmark_{secrets.token_hex(4)}" for _ in range(2)]
    ours, theirs = (services.new_database(name) for name in names)
    try:
        await migrate(ours)
        stream = await write(ours, events)
        peer = Peer(theirs)
        try:
            peer.write(STREAM, LIFE, max(0, events - STREAM) // LIFE)
            return await _rounds(ours, stream, peer, rounds)
        finally:
            peer.close()
    finally:
        for name in names:
            services.drop_database(name)


async def _rounds(ours: str, stream: UUID, peer: Peer, rounds: int) -> dict[str, list[Rate]]:
    found: dict[str, list[Rate]] = {}

    def note(timer: Timer, name: str, events: int) -> None:
        rate = timer.rate(events)
        found.setdefault(name, []).append(rate)
        print(f"{name:22} {rate.per_second:9,.0f} events/s", file=sys.stderr)

    for _ in range(rounds):
        timer = Timer()
        note(timer, "peer: replay", peer.replay())
        timer = Timer()
        note(timer, "fold a stream", await fold_stream(ours, stream))
        timer = Timer()
        note(timer, "peer: read the log", peer.read())
        timer = Timer()
        note(timer, "read the log", await read_whole(ours))
        timer = Timer()
        note(timer, "project", await project(ours))
    return found


GOALS = {"fold a stream": ("peer: replay", 2.0), "read the log": ("peer: read the log", 1.5)}
"""What each of ours stands beside, and how many times as fast it is to be."""
PROJECTED = 25_000
"""Events a second that a simple projection is to take in a rebuild."""


def summary(found: dict[str, list[Rate]]) -> dict[str, dict[str, float]]:
    """Return the medians, and of ours the median ratio to the peer in the same round."""
    result = {}
    for name, rates in found.items():
        result[name] = {
            "per_second": median(rate.per_second for rate in rates),
            "own_time": median(rate.own_time for rate in rates),
        }
        if name in GOALS:
            pairs = list(zip(rates, found[GOALS[name][0]], strict=True))
            result[name]["ratio"] = median(mine.per_second / other.per_second for mine, other in pairs)
            result[name]["own_ratio"] = median(other.own_time / mine.own_time for mine, other in pairs)
    return result


def report(results: dict[str, dict[str, float]]) -> str:
    """Return the summary as a table."""
    lines = [f"{'':22}{'events/s':>11}{'own µs/event':>15}{'× the peer':>13}{'by own time':>14}{'goal':>10}"]
    for name, it in results.items():
        goal = f"{GOALS[name][1]:.1f} ×" if name in GOALS else f"{PROJECTED:,}" if name == "project" else ""
        ratios = f"{it['ratio']:13.1f}{it['own_ratio']:14.1f}" if "ratio" in it else f"{'':27}"
        lines.append(f"{name:22}{it['per_second']:11,.0f}{it['own_time']:15.1f}{ratios}{goal:>10}")
    return "\n".join(lines)


def run(services: Services, *, events: int, rounds: int) -> dict[str, dict[str, float]]:
    """Run the benchmark, print its table and return the summary."""
    results = summary(uvloop.run(measure(services, events=events, rounds=rounds)))
    print(report(results))
    return results
