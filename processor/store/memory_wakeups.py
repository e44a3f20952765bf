"""What wakes instances of the provider in memory."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

from holdfast.processor.engine.provider import RouteKind, StoredMessage
from holdfast.processor.engine.wakeups import Mail, Runnable, Wakeups
from holdfast.processor.store.memory_tables import InboxRow, InstanceRow, Tables, settle
from holdfast.schemas.activity_messages import ActivityResult
from holdfast.schemas.message import Envelope

LEFT_LYING = timedelta(seconds=30)
"""For so long what wakes an instance is left to whoever consumes its partition."""


def wakeups(tables: Tables, host_id: UUID, instance_id: UUID) -> Wakeups:
    """Return what wakes an instance that the host holds."""
    now = tables.now()
    row = tables.instances.get(instance_id)
    if row is None or not tables.holds(row, host_id, row.token):
        return Wakeups(now=now)
    messages: dict[tuple[str, str] | int, StoredMessage] = {}
    wanted = {(b.message_type, b.correlation_key) for b in row.bookmarks.values() if b.kind != "timer"}
    for left in tables.buffered():
        message = left.message
        address = (message.envelope.type, message.envelope.key)
        if message.kind == "control":
            if left.instance_id == instance_id:
                messages[message.sequence] = message
        elif address in wanted and left.instance_id in (None, instance_id) and not row.is_suspended:
            messages.setdefault(address, message)
    due = () if row.is_suspended else tuple(tables.due(row, now))
    return Wakeups(now=now, messages=list(messages.values()), due=due)


def find_mail(tables: Tables, mail: Mail) -> list[StoredMessage]:
    """Return the oldest message of each address that an instance waits for and has not taken."""
    found: dict[tuple[str, str], StoredMessage] = {}
    for left in tables.buffered():
        envelope = left.message.envelope
        address = (envelope.type, envelope.key)
        is_wanted = address in mail.waits and left.instance_id in (None, mail.instance_id)
        if left.message.kind == "message" and is_wanted and envelope.message_id not in mail.taken:
            found.setdefault(address, left.message)
    return list(found.values())


def runnable(
    tables: Tables, host_id: UUID, start_types: Sequence[str], limit: int, held_back: Sequence[int]
) -> list[Runnable]:
    """Return work for a host, from where its last look ended, so that what cannot go on does not hide the rest."""
    found = _all_runnable(tables, _Reach(tables, host_id, held_back), start_types)
    names = list(found)
    last = tables.looked_up_to.pop(host_id, None)
    begin = names.index(last) + 1 if last in found else 0
    page = names[begin : begin + limit]
    if len(page) == limit:
        tables.looked_up_to[host_id] = page[-1]
    return [found[name] for name in page]


class _Reach:
    """What one host is to wake: what it holds, and what is free and not another host's to wake."""

    def __init__(self, tables: Tables, host_id: UUID, held_back: Sequence[int]) -> None:
        self.now = tables.now()
        self._host_id = host_id
        self._foreign = tables.foreign(host_id, self.now)
        self._held_back = {*held_back, *(number for number, waits in self._foreign.items() if waits)}
        rows = tables.instances.items()
        self.free = {n: r for n, r in rows if tables.is_free(r, host_id, self.now) and r.subflow != "run"}

    def has(self, instance_id: UUID | None, since: datetime) -> bool:
        """Whether an instance is to be woken by what has been there since a moment."""
        row = None if instance_id is None else self.free.get(instance_id)
        return row is not None and (row.owner == self._host_id or self.is_near(row.registration.partition, since))

    def is_near(self, partition: int | None, since: datetime) -> bool:
        """Whether this host takes up what nobody holds, or another one has left it lying."""
        return partition not in self._foreign or since < self.now - LEFT_LYING

    def due(self, row: InstanceRow) -> list[datetime]:
        """Return the moments of the timers of an instance that may fire at their time."""
        if row.is_suspended or row.registration.partition in self._held_back:
            return []
        return [datetime.fromisoformat(bookmark.due) for bookmark in row.bookmarks.values() if bookmark.due is not None]


def _all_runnable(tables: Tables, reach: _Reach, start_types: Sequence[str]) -> dict[UUID | int, Runnable]:
    found: dict[UUID | int, Runnable] = {}
    for left in list(tables.buffered()):
        instance_id = left.instance_id
        if left.message.kind == "control" and instance_id not in tables.instances:
            settle(left, "rejected", reason="completed")
        if left.message.kind != "control" or instance_id is None or not reach.has(instance_id, left.received_at):
            continue
        if reach.free[instance_id].is_completed:
            tables.reject_left_over(instance_id)
        else:
            found.setdefault(instance_id, Runnable(instance_id=instance_id, why="control"))
    awake = {name: row for name, row in reach.free.items() if not row.is_suspended and not row.is_completed}
    for instance_id, row in awake.items():
        due = [moment for moment in reach.due(row) if moment <= reach.now]
        if due and reach.has(instance_id, min(due)):
            found.setdefault(instance_id, Runnable(instance_id=instance_id, why="timer"))
    for instance_id, row in awake.items():
        if row.must_go_on and tables.living(row.owner, reach.now) is None and reach.has(instance_id, reach.now):
            found.setdefault(instance_id, Runnable(instance_id=instance_id, why="lapsed"))
    for left in list(tables.buffered()):
        if left.message.kind == "message":
            near = {name: row for name, row in awake.items() if reach.has(name, left.received_at)}
            types = start_types if reach.is_near(left.message.partition, left.received_at) else ()
            _consider(tables, left, near, types, found)
    return found


def next_timer(tables: Tables, host_id: UUID, held_back: Sequence[int]) -> float | None:
    """Return the seconds until the next timer that a host may fire."""
    reach = _Reach(tables, host_id, held_back)
    due = [m for name, row in reach.free.items() if reach.has(name, reach.now) for m in reach.due(row)]
    return max(0.0, (min(due) - reach.now).total_seconds()) if due else None


def _consider(
    tables: Tables,
    left: InboxRow,
    awake: dict[UUID, InstanceRow],
    start_types: Sequence[str],
    found: dict[UUID | int, Runnable],
) -> None:
    """Add what a buffered message makes runnable; reject it if its instance is closed."""
    envelope = left.message.envelope
    waiting = tables.waiting(envelope, left.instance_id)
    started = tables.non_persisted(envelope.message_id)
    if waiting is not None:
        if waiting in awake:
            found.setdefault(waiting, Runnable(instance_id=waiting, why="message"))
    elif started is not None:
        if started[0] in awake:
            found.setdefault(started[0], Runnable(instance_id=started[0], why="start"))
    elif envelope.type == ActivityResult.message_type:
        settle(left, "rejected", reason="late")
    else:
        known = tables.route_by_key(envelope)
        if known.kind is RouteKind.FINISHED and known.instance_id is not None:
            tables.reject_left_over(known.instance_id)
        elif (
            known.kind is RouteKind.NONE
            and left.instance_id is None
            and envelope.type in start_types
            and not _is_started(tables, envelope)
        ):
            found[left.message.sequence] = Runnable(message=left.message, why="start")


def _is_started(tables: Tables, envelope: Envelope) -> bool:
    """Whether a living instance was started with the type and key."""
    for row in tables.instances.values():
        program = tables.programs.get(row.registration.program_hash)
        is_its_key = row.registration.correlation_key == envelope.key and not row.is_completed
        if is_its_key and program and program.starts_with == envelope.type:
            return True
    return False
