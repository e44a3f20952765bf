"""The programs that hosts bring along."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

import orjson

from holdfast.processor.engine.stored_program import StoredProgram
from holdfast.processor.store.connections import Connection
from holdfast.schemas.postgres.statements import load

_SQL = load(__package__)


async def save(connection: Connection, app: str, programs: Sequence[StoredProgram]) -> None:
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


async def find(connection: Connection, app: str, program_hash: str) -> StoredProgram | None:
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


async def living(connection: Connection, app: str) -> list[tuple[str, str]]:
    """Return name of workflow and hash of each program on which an instance lives."""
    cursor = await connection.execute(_SQL["living_programs"], {"app": app})
    return [(workflow, program_hash) for workflow, program_hash in await cursor.fetchall()]


async def runs_elsewhere(connection: Connection, app: str, host_id: UUID, programs: Sequence[str]) -> bool:
    """Tell whether some other living host can run all of these programs."""
    cursor = await connection.execute(
        _SQL["runs_elsewhere"], {"app": app, "host_id": host_id, "programs": list(programs)}
    )
    return await cursor.fetchone() is not None
