"""What wakes instances of the provider in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from uuid import UUID

from holdfast.processor.engine.provider import RouteKind, Runnable, StoredMessage
from holdfast.processor.engine.wakeups import Mail, Wakeups
from holdfast.processor.store.memory_tables import InboxRow, InstanceRow, Tables, settle
from holdfast.schemas.activity_messages import ActivityResult
from holdfast.schemas.message import Envelope


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


def runnable(tables: Tables, host_id: UUID, start_types: Sequence[str], limit: int) -> list[Runnable]:
    """Return work for a host, from where its last look ended, so that what cannot go on does not hide the rest."""
    found = _all_runnable(tables, host_id, start_types)
    names = list(found)
    last = tables.looked_up_to.pop(host_id, None)
    begin = names.index(last) + 1 if last in found else 0
    page = names[begin : begin + limit]
    if len(page) == limit:
        tables.looked_up_to[host_id] = page[-1]
    return [found[name] for name in page]


def _all_runnable(tables: Tables, host_id: UUID, start_types: Sequence[str]) -> dict[UUID | int, Runnable]:
    now = tables.now()
    found: dict[UUID | int, Runnable] = {}
    free = {name: row for name, row in _within_reach(tables, host_id, now) if row.subflow != "run"}
    for left in list(tables.buffered()):
        if left.message.kind != "control" or left.instance_id not in free:
            continue
        if free[left.instance_id].is_completed:
            tables.reject_left_over(left.instance_id)
        else:
            found.setdefault(left.instance_id, Runnable(instance_id=left.instance_id, why="control"))
    awake = {name: row for name, row in free.items() if not row.is_suspended and not row.is_completed}
    for instance_id, row in awake.items():
        if tables.due(row, now):
            found.setdefault(instance_id, Runnable(instance_id=instance_id, why="timer"))
    for instance_id, row in awake.items():
        if row.must_go_on and row.owner != host_id and tables.living(row.owner, now) is None:
            found.setdefault(instance_id, Runnable(instance_id=instance_id, why="lapsed"))
    for left in list(tables.buffered()):
        if left.message.kind == "message":
            _consider(tables, left, awake, start_types, found)
    return found


def next_timer(tables: Tables, host_id: UUID) -> float | None:
    """Return the seconds until the next timer that a host may fire."""
    now = tables.now()
    due = [
        datetime.fromisoformat(bookmark.due)
        for _, row in _within_reach(tables, host_id, now)
        if not row.is_suspended
        for bookmark in row.bookmarks.values()
        if bookmark.due is not None
    ]
    return max(0.0, (min(due) - now).total_seconds()) if due else None


def _within_reach(tables: Tables, host_id: UUID, now: datetime) -> Iterator[tuple[UUID, InstanceRow]]:
    """Return the instances that a host is to wake: those it holds, and those that no other host holds or is to hold."""
    foreign = tables.foreign(host_id, now)
    for name, row in tables.instances.items():
        if row.owner == host_id or (tables.is_free(row, host_id, now) and row.registration.partition not in foreign):
            yield name, row


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
        if row.registration.correlation_key == envelope.key and program and program.starts_with == envelope.type:
            return True
    return False
