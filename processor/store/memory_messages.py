"""The inbox and the outbox of the provider in memory."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from uuid import UUID

from holdfast.processor.engine.provider import Intake, Outgoing, Route, RouteKind
from holdfast.processor.store.memory_tables import Tables, digest_of, settle
from holdfast.schemas.activity_messages import SILENT, ActivityHeartbeat, lost


def take_in(tables: Tables, intake: Intake) -> Route:
    """Store a message with a verdict and return what became of it."""
    envelope = intake.envelope
    known = tables.inbox.get(envelope.message_id)
    if known is not None:
        if known.digest != digest_of(envelope):
            if intake.verdict == "dead_lettered":
                own = f"{envelope.message_id}#{digest_of(envelope).hex()}"
                take_in(tables, replace(intake, envelope=replace(envelope, message_id=own)))
            return Route(RouteKind.REUSED)
        if known.verdict != "buffered" or intake.verdict == "buffered":
            return Route(RouteKind.DUPLICATE)
    if known is None and intake.room is not None and _waiting(tables, envelope.key) >= intake.room:
        intake = replace(intake, verdict="dead_lettered", reason="mailbox_full")
    row = known or tables.insert(
        envelope,
        intake.kind,
        intake.instance_id,
        received_at=intake.received_at,
        partition=intake.partition,
        arrived_at=intake.arrived_at,
    )
    row.verdict, row.reason, row.detail = intake.verdict, intake.reason, intake.detail
    if intake.verdict != "buffered":
        tables.attempts.pop(envelope.message_id, None)
        return Route(RouteKind.FULL if intake.reason == "mailbox_full" else RouteKind.NONE)
    if intake.kind == "control":
        return Route(RouteKind.NONE)
    waiting = tables.waiting(envelope, intake.instance_id)
    if waiting is not None:
        return Route(RouteKind.BOOKMARK, waiting)
    found = tables.route_by_key(envelope)
    if found.kind is RouteKind.FINISHED:
        settle(row, "rejected", reason="completed", instance_id=found.instance_id)
        return found
    if found.instance_id is not None and tables.can_start(found.instance_id):
        return Route(RouteKind.NON_PERSISTED, found.instance_id)
    return Route(RouteKind.NONE)


def _waiting(tables: Tables, key: str) -> int:
    """Count the messages that are buffered under a key."""
    return sum(row.message.kind == "message" and row.message.envelope.key == key for row in tables.buffered())


def beat(tables: Tables, heartbeat: ActivityHeartbeat) -> None:
    """Note that a worker is busy with a request."""
    if tables.waiting(lost(heartbeat.request, "")) is not None:
        tables.heartbeats[heartbeat.request] = tables.now() + timedelta(seconds=heartbeat.seconds)


def lapse(tables: Tables, limit: int) -> list[Intake]:
    """Forget the requests whose workers fell silent, and return the answers to those that are still awaited."""
    silent = [request for request, due in tables.heartbeats.items() if due <= tables.now()][:limit]
    answers = [lost(request, SILENT) for request in silent]
    for request in silent:
        del tables.heartbeats[request]
    return [Intake(envelope=each, verdict="buffered") for each in answers if tables.waiting(each) is not None]


def expire(tables: Tables, ttl_seconds: float, limit: int) -> int:
    """Let what nobody claims expire, and count it."""
    now = tables.now()
    old = [
        row
        for row in tables.buffered()
        if row.message.kind == "message"
        and row.instance_id is None
        and (now - row.received_at).total_seconds() > ttl_seconds
        and tables.route_by_key(row.message.envelope).kind is not RouteKind.LIVING
        and tables.waiting(row.message.envelope) is None
    ][:limit]
    for row in old:
        settle(row, "expired")
        tables.attempts.pop(row.message.envelope.message_id, None)
    return len(old)


def outbox(tables: Tables, host_id: UUID, limit: int) -> list[Outgoing]:
    """Return what a host is to publish, oldest first."""
    now, held_up, found = tables.now(), set(), []
    for row in tables.outbox.values():
        if row.dead_reason is not None:
            continue
        if row.host_id != host_id and tables.living(row.host_id, now) is not None:
            held_up.add(row.instance_id)
        elif row.instance_id not in held_up:
            found.append(row.message)
    return found[:limit]
