"""Hosts and their leases, and the programs that they bring along."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from uuid import UUID

import orjson

from holdfast.processor.engine.peers import Host, Peer
from holdfast.processor.engine.provider import StoredProgram
from holdfast.processor.store.connections import Connection, one
from holdfast.schemas.postgres.statements import load

_SQL = load(__package__)

CHANNEL = "holdfast_hosts"
"""Where hosts hear, as a hint, that another one came, went, or took or left a partition; the payload is the app."""


async def open_host(connection: Connection, host: Host) -> None:
    """Add a host with a fresh lease, and forget those that ended long ago."""
    await connection.execute(_SQL["forget_hosts"], {"app": host.app})
    await connection.execute(
        _SQL["open_host"],
        {
            "host_id": host.host_id,
            "app": host.app,
            "machine": host.machine,
            "process_id": host.process_id,
            "lease_seconds": host.lease_seconds,
            "programs": list(host.programs),
            "message_types": list(host.message_types),
        },
    )
    await _tell(connection, host.app)


async def renew_host(connection: Connection, host_id: UUID, lease_seconds: float) -> bool:
    """Renew a lease unless it lapsed."""
    cursor = await connection.execute(_SQL["renew_host"], {"host_id": host_id, "lease_seconds": lease_seconds})
    return await cursor.fetchone() is not None


async def close_host(connection: Connection, app: str, host_id: UUID) -> None:
    """Free every lock of the host and forget it."""
    await connection.execute(_SQL["close_host"], {"host_id": host_id})
    await _tell(connection, app)


async def share(
    connection: Connection, app: str, host_id: UUID, consumed: Mapping[int, datetime], held_back: Sequence[int]
) -> list[Peer]:
    """Note which partitions the host consumes, tell the others if that is news, and return who lives."""
    partitions = sorted(consumed)
    cursor = await connection.execute(
        _SQL["share"],
        {
            "host_id": host_id,
            "partitions": partitions,
            "consuming_since": [consumed[partition] for partition in partitions],
            "held_back": list(held_back),
        },
    )
    row = await cursor.fetchone()
    if row is not None and row[0]:
        await _tell(connection, app)
    cursor = await connection.execute(_SQL["living_hosts"], {"app": app})
    return [
        Peer(host_id=each, lease_left=left, partitions=frozenset(taken), shared_at=shared_at)
        for each, left, taken, shared_at in await cursor.fetchall()
    ]


async def _tell(connection: Connection, app: str) -> None:
    await connection.execute(_SQL["notify"], {"channel": CHANNEL, "app": app})


async def known_types(connection: Connection, app: str) -> frozenset[str]:
    """Return the message types that some living host of the app knows."""
    cursor = await connection.execute(_SQL["known_types"], {"app": app})
    return frozenset(name for (name,) in await cursor.fetchall())


async def save_programs(connection: Connection, app: str, programs: Sequence[StoredProgram]) -> None:
    """Keep programs; one that is there already stays as it is."""
    for program in sorted(programs, key=lambda p: p.program_hash):
        await connection.execute(
            _SQL["save_programs"],
            {
                "app": app,
                "program_hash": program.program_hash,
                "workflow": program.workflow,
                "format": program.format,
                "program": orjson.dumps(program.program).decode(),
                "starts_with": program.starts_with,
                "receives": list(program.receives),
                "signature": program.signature,
                "expected_lifetime": program.expected_lifetime,
                "reuse_key": program.reuse_key,
            },
        )
        if program.starts_with is not None:
            await connection.execute(
                _SQL["reuse_keys"], {"app": app, "workflow": program.workflow, "reuse_key": program.reuse_key}
            )


async def load_program(connection: Connection, app: str, program_hash: str) -> StoredProgram | None:
    """Return a program of the app."""
    cursor = await connection.execute(_SQL["load_program"], {"app": app, "program_hash": program_hash})
    row = await cursor.fetchone()
    if row is None:
        return None
    _, workflow, version, program, starts_with, receives, signature, expected_lifetime, reuse_key = row
    return StoredProgram(
        program_hash=program_hash,
        workflow=workflow,
        format=version,
        program=orjson.loads(program),
        starts_with=starts_with,
        receives=tuple(receives),
        signature=signature,
        expected_lifetime=expected_lifetime,
        reuse_key=reuse_key,
    )


async def living_programs(connection: Connection, app: str) -> list[tuple[str, str]]:
    """Return name of workflow and hash of each program on which an instance lives."""
    cursor = await connection.execute(_SQL["living_programs"], {"app": app})
    return [(workflow, program_hash) for workflow, program_hash in await cursor.fetchall()]


async def runs_elsewhere(connection: Connection, app: str, host_id: UUID, programs: Sequence[str]) -> bool:
    """Tell whether some other living host can run all of these programs."""
    cursor = await connection.execute(
        _SQL["runs_elsewhere"], {"app": app, "host_id": host_id, "programs": list(programs)}
    )
    return await cursor.fetchone() is not None


async def now(connection: Connection) -> datetime:
    """Return the database's clock, in UTC."""
    cursor = await connection.execute(_SQL["now"])
    (moment,) = await one(cursor)
    found: datetime = moment
    return found.astimezone(UTC)
