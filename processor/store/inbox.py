"""The inbox: where messages belong, and the verdicts that they get without a batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID

from holdfast.processor.engine.provider import Batch, Deposit, Intake, Route, RouteKind, StoredMessage
from holdfast.processor.store.connections import Connection
from holdfast.schemas.identifiers import digest, storable
from holdfast.schemas.message import Envelope
from holdfast.schemas.postgres.statements import load

_SQL = load(__package__)

CHANNEL = "holdfast"
"""Where hosts hear, as a hint, that something lies in the inbox; the payload is the app."""


async def route(connection: Connection, app: str, envelopes: Sequence[Envelope]) -> list[Route]:
    """Return where each message belongs, first match of the routing table."""
    cursor = await connection.execute(
        _SQL["route"],
        {
            "app": app,
            "message_ids": [e.message_id for e in envelopes],
            "types": [e.type for e in envelopes],
            "keys": [e.key for e in envelopes],
            "digests": [_digest(e) for e in envelopes],
        },
        binary=True,
    )
    return [Route(RouteKind(kind), instance_id) for kind, instance_id in await cursor.fetchall()]


async def take_in(connection: Connection, app: str, intakes: Sequence[Intake]) -> list[Route]:
    """Store messages, each statement a transaction, and return what became of each.

    Who waits for a buffered message is looked up only after it was committed, and who opens a bookmark
    looks for messages after that commit: whichever of two hosts commits last sees the other.
    """
    first: dict[str, Intake] = {}
    for intake in intakes:
        first.setdefault(intake.envelope.message_id, intake)
    stored = await _store(connection, app, list(first.values()))
    known = await _digests(connection, app, [name for name in first if name not in stored])
    takers = await _find_takers(
        connection,
        app,
        [name for name, verdict in stored.items() if verdict == "buffered" and first[name].kind == "message"],
    )
    routes = []
    for intake in intakes:
        message_id = intake.envelope.message_id
        if message_id in stored and intake is first[message_id]:
            is_full = stored[message_id] != intake.verdict
            routes.append(takers.get(message_id, Route(RouteKind.FULL if is_full else RouteKind.NONE)))
        else:
            before = known.get(message_id) or _digest(first[message_id].envelope)
            same = before == _digest(intake.envelope)
            routes.append(Route(RouteKind.DUPLICATE if same else RouteKind.REUSED))
    await _keep_reused(connection, app, intakes, routes)
    commanded = any(i.kind == "control" and i.envelope.message_id in stored for i in intakes)
    if commanded or any(route.kind is RouteKind.BOOKMARK for route in routes):
        await connection.execute(_SQL["notify"], {"channel": CHANNEL, "app": app})
    return routes


async def attempt(
    connection: Connection, app: str, message_ids: Sequence[str], instance_id: UUID | None = None
) -> list[int]:
    """Count one more attempt of each message, or of what bursts of an instance go by, and return the counts."""
    cursor = await connection.execute(
        _SQL["attempt"],
        {"app": app, "message_ids": sorted(set(message_ids)), "instance_id": instance_id},
        binary=True,
    )
    counts: dict[str, int] = dict(await cursor.fetchall())
    return [counts[message_id] for message_id in message_ids]


async def expire(connection: Connection, app: str, ttl_seconds: float, limit: int, after: int) -> tuple[int, int]:
    """Let one page of buffered messages expire; return how many did, and where the next page begins."""
    cursor = await connection.execute(
        _SQL["expire"], {"app": app, "ttl_seconds": float(ttl_seconds), "limit": limit, "after": after}, binary=True
    )
    row = await cursor.fetchone()
    expired, last, more = row or (0, None, False)
    return expired, last if more and last is not None else 0


async def settle(connection: Connection, app: str, batches: Sequence[Batch]) -> set[str]:
    """Give the messages that batches consume their verdict and put what they send into the outbox.

    Returns the ids of the messages that were still to be had; the caller rolls back if one is missing.
    """
    consumed = [(b, c) for b in batches for c in b.consumed]
    outgoing = [(b, o) for b in batches for o in b.outgoing]
    if not consumed and not outgoing:
        return set()
    cursor = await connection.execute(
        _SQL["settle"],
        {
            "app": app,
            "consumed_by": [b.instance_id for b, _ in consumed],
            "versions": [b.state.version for b, _ in consumed],
            "message_ids": [c.envelope.message_id for _, c in consumed],
            "kinds": [c.kind for _, c in consumed],
            "types": [c.envelope.type for _, c in consumed],
            "keys": [c.envelope.key for _, c in consumed],
            "digests": [_digest(c.envelope) for _, c in consumed],
            "traceparents": [c.envelope.traceparent for _, c in consumed],
            "sent_by": [b.instance_id for b, _ in outgoing],
            "sent_from": [b.host_id for b, _ in outgoing],
            "outgoing_ids": [o.message_id for _, o in outgoing],
            "exchanges": [o.exchange for _, o in outgoing],
            "routing_keys": [o.routing_key for _, o in outgoing],
            "outgoing_types": [o.type for _, o in outgoing],
            "outgoing_keys": [o.key for _, o in outgoing],
            "bodies": [o.body for _, o in outgoing],
            "outgoing_traceparents": [o.traceparent for _, o in outgoing],
        },
        binary=True,
    )
    return {message_id for (message_id,) in await cursor.fetchall()}


async def reject_left_over(connection: Connection, instance_ids: Sequence[Any]) -> None:
    """Give what is left in the mailboxes of closed instances the verdict ``rejected: completed``."""
    await connection.execute(_SQL["reject_left_over"], {"instance_ids": list(instance_ids)})


async def deposit(connection: Connection, app: str, deposits: Sequence[Deposit]) -> None:
    """Put messages and commands into mailboxes; an id that is known already is left alone.

    Hosts hear of it with the commit.
    """
    if not deposits:
        return
    addressed = [d.instance_id for d in deposits if d.instance_id is not None]
    if addressed:
        await connection.execute(_SQL["await_commits"], {"instance_ids": addressed}, binary=True)
    await connection.execute(
        _SQL["deposit"],
        {
            "app": app,
            "kinds": [d.kind for d in deposits],
            "instance_ids": [d.instance_id for d in deposits],
            **columns([d.envelope for d in deposits]),
        },
        binary=True,
    )
    await connection.execute(_SQL["notify"], {"channel": CHANNEL, "app": app})


def columns(envelopes: Sequence[Envelope]) -> dict[str, list[Any]]:
    """Return the columns of messages that are stored as they are."""
    return {
        "message_ids": [e.message_id for e in envelopes],
        "types": [e.type for e in envelopes],
        "keys": [e.key for e in envelopes],
        "bodies": [e.body for e in envelopes],
        "digests": [_digest(e) for e in envelopes],
        "traceparents": [e.traceparent for e in envelopes],
        "reply_tos": [e.reply_to for e in envelopes],
    }


async def reject_late(connection: Connection, app: str, message_ids: Sequence[str]) -> None:
    """Give stored results of activities that nobody waits for the verdict ``rejected: late``."""
    await connection.execute(_SQL["reject_late"], {"app": app, "message_ids": list(message_ids)})


def stored_message(row: Sequence[Any], partition: int | None = None) -> StoredMessage:
    """Return the message of a row, which came by a partition if that matters.

    Sequence, kind, id, type, key, body, traceparent, reply_to, received_at, instance.
    """
    sequence, kind, message_id, message_type, key, body, traceparent, reply_to, received_at, instance_id = row
    envelope = Envelope(
        message_id=message_id,
        type=message_type,
        key=key,
        body=bytes(body or b""),
        traceparent=traceparent,
        reply_to=reply_to,
    )
    return StoredMessage(
        sequence=sequence,
        kind=kind,
        envelope=envelope,
        received_at=received_at,
        instance_id=instance_id,
        partition=partition,
    )


def _digest(envelope: Envelope) -> bytes:
    return digest(envelope.type, envelope.key, envelope.body)


async def _store(connection: Connection, app: str, intakes: Sequence[Intake]) -> dict[str, str]:
    """Store what is not known, and return the verdict of each that was."""
    rooms = [i.room for i in intakes if i.room is not None]
    cursor = await connection.execute(
        _SQL["take_in"],
        {
            **columns([i.envelope for i in intakes]),
            "app": app,
            "kinds": [i.kind for i in intakes],
            "bodies": [i.envelope.body if i.verdict in ("buffered", "dead_lettered") else None for i in intakes],
            "verdicts": [i.verdict for i in intakes],
            "reasons": [i.reason and storable(i.reason) for i in intakes],
            "details": [i.detail and storable(i.detail) for i in intakes],
            "instance_ids": [i.instance_id for i in intakes],
            "received_ats": [i.received_at for i in intakes],
            "are_bounded": [i.room is not None for i in intakes],
            "room": min(rooms, default=0),
            "partitions": [i.partition for i in intakes],
            "arrived_at": [i.arrived_at for i in intakes],
        },
        binary=True,
    )
    return dict(await cursor.fetchall())


async def _digests(connection: Connection, app: str, message_ids: list[str]) -> dict[str, bytes]:
    if not message_ids:
        return {}
    cursor = await connection.execute(_SQL["compare"], {"app": app, "message_ids": message_ids}, binary=True)
    return {message_id: bytes(found) for message_id, found in await cursor.fetchall()}


async def _find_takers(connection: Connection, app: str, message_ids: list[str]) -> dict[str, Route]:
    if not message_ids:
        return {}
    cursor = await connection.execute(_SQL["find_takers"], {"app": app, "message_ids": message_ids}, binary=True)
    return {message_id: Route(RouteKind(kind), taker) for message_id, kind, taker in await cursor.fetchall()}


async def _keep_reused(connection: Connection, app: str, intakes: Sequence[Intake], routes: Sequence[Route]) -> None:
    """Keep dead letters whose id another message has: under an id of their own, so that nothing is lost."""
    reused = {}
    for intake, found in zip(intakes, routes, strict=True):
        if found.kind is RouteKind.REUSED and intake.verdict == "dead_lettered":
            own = f"{intake.envelope.message_id}#{_digest(intake.envelope).hex()}"
            reused[own] = replace(intake, envelope=replace(intake.envelope, message_id=own))
    if reused:
        await _store(connection, app, list(reused.values()))
