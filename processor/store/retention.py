"""Removing what is over, after a time: closed instances, their streams, settled messages, what nobody refers to.

What may go is for the database to say: functions that only members of ``holdfast_retention`` may call, and through
which alone something leaves the log (``schemas/postgres/ddl/0008_retention.sql``). Here is the way through its tables,
some blocks at a time, each in a transaction of its own. A run that breaks off has done what it has done, and the
next one does the rest.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from holdfast.processor.store.connections import Connection, one
from holdfast.schemas.postgres.statements import load

_SQL = load(__package__)

BLOCKS = 256
"""How much of a table one transaction looks through: 2 MB, which is some thousand events or messages."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """How long what is over is kept; None keeps it for ever.

    ``instances``: rows and states, since they closed. ``streams``: whole histories, since their instances closed; with
    one goes the row, if it is still there. ``inbox``: messages with a final verdict, since they were received; a
    message that comes again after that is a new one. With it go counts of attempts, and heartbeats, that are of no
    more use. ``dead_letters``: those of inbox and outbox, since they were received or written. ``programs``: those
    that no instance runs on, since a worker last started with them.
    """

    instances: timedelta | None = None
    streams: timedelta | None = None
    inbox: timedelta | None = None
    dead_letters: timedelta | None = None
    programs: timedelta | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Removed:
    """How much was removed; ``events`` are those of the ``streams``."""

    instances: int = 0
    streams: int = 0
    events: int = 0
    messages: int = 0
    dead_letters: int = 0
    attempts: int = 0
    heartbeats: int = 0
    programs: int = 0


async def remove(
    connection: Connection, retention: Retention, *, app: str | None = None, dry_run: bool = False
) -> Removed:
    """Remove what is over for longer than it is to be kept, of one app or of all; ``dry_run`` only counts it.

    The connection commits each statement by itself.
    """
    removed: Counter[str] = Counter()
    for age, table, statement, names in (
        (retention.instances, "instance_rows", "remove_instances", ["instances"]),
        (retention.streams, "events", "remove_streams", ["streams", "events"]),
        (retention.inbox, "inbox", "remove_messages", ["messages"]),
        (retention.inbox, "attempts", "remove_attempts", ["attempts"]),
        (retention.inbox, "heartbeats", "remove_heartbeats", ["heartbeats"]),
        (retention.dead_letters, "inbox", "remove_dead_letters", ["dead_letters"]),
        (retention.dead_letters, "outbox", "remove_unroutable", ["dead_letters"]),
        (retention.programs, "programs", "remove_programs", ["programs"]),
    ):
        if age is not None:
            about = {"app": app, "age": age, "for_real": not dry_run}
            removed += await _go_through(connection, table, statement, names, about)
    return Removed(**removed)


async def _go_through(
    connection: Connection, table: str, statement: str, names: Sequence[str], about: Mapping[str, object]
) -> Counter[str]:
    (blocks,) = await one(await connection.execute(_SQL["blocks"], {"table": f"holdfast.{table}"}))
    removed: Counter[str] = Counter()
    for first in range(0, blocks, BLOCKS):
        cursor = await connection.execute(_SQL[statement], {**about, "first": first, "last": first + BLOCKS})
        for name, count in zip(names, await one(cursor), strict=True):
            removed[name] += count
    return removed
