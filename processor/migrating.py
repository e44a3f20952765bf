"""How living instances stand to the code of their app, and moving them to its programs.

A look only reads, page by page; what is moved is held by the client for the time of one transaction.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from uuid import UUID

from holdfast.events.postgres import read_stream
from holdfast.events.types import Event
from holdfast.processor.core.migration import Migration, Obstacle
from holdfast.processor.engine.batch import Batch, Keeping
from holdfast.processor.engine.runtime import stored_program
from holdfast.processor.engine.stored_program import StoredProgram
from holdfast.processor.following import Run
from holdfast.processor.hold import HeldInstance
from holdfast.processor.language.app import App
from holdfast.processor.language.definition import Definition
from holdfast.processor.language.program import Program
from holdfast.processor.store import stored_programs
from holdfast.processor.store.connections import Connection
from holdfast.processor.store.persistence_point import write
from holdfast.projections import history, queries
from holdfast.projections.instance import InstanceState, fold
from holdfast.schemas.encodings import StateEncoding
from holdfast.schemas.errors import (
    InstanceCompleted,
    InstanceNotFound,
    ProgramUnresolvable,
    StorageError,
    WrongExpectedVersion,
)
from holdfast.schemas.postgres.statements import load

_SQL = load(__package__)
_PAGE = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """How one living instance stands to the deployed code.

    ``is_current`` says that all its frames run on the deployed programs, so that there is nothing to do. Otherwise
    ``hindrances`` are what keeps workers with that code from running it on the programs that it has, and ``obstacles``
    what keeps it from being moved to the deployed ones. Of an instance that was never persisted there is nothing to
    move: it begins with the program that it was registered with. One that ``is_suspended`` stays so when it is moved.
    """

    instance_id: UUID
    workflow: str
    correlation_key: str
    program_hash: str
    version: int
    line: int | None
    is_current: bool
    is_suspended: bool
    hindrances: tuple[Obstacle, ...] = ()
    obstacles: tuple[Obstacle, ...] = ()

    @property
    def can_run(self) -> bool:
        """Whether workers with the deployed code, and the program key, can go on with it as it is."""
        return not self.hindrances

    @property
    def can_move(self) -> bool:
        """Whether it can be moved to the deployed programs."""
        return not self.is_current and not self.obstacles


@dataclass(frozen=True, slots=True)
class _Row:
    """What the row of a living instance says."""

    instance_id: UUID
    workflow: str
    correlation_key: str
    program_hash: str
    version: int
    is_initialized: bool
    is_suspended: bool


async def preflight(connection: Connection, app: App, program_key: str) -> AsyncIterator[Verdict]:
    """Yield how each living instance of an app stands to it, the oldest first, page by page."""
    migration = Migration(app)
    if program_key:
        migration.unsigned |= await _unsigned(connection, app, program_key)
    after: UUID | None = None
    while True:
        cursor = await connection.execute(_SQL["living_instances"], {"app": app.name, "after": after, "limit": _PAGE})
        rows = await cursor.fetchall()
        for row in rows:
            try:
                verdict = await _verdict(connection, migration, _Row(*row))
            except (InstanceCompleted, InstanceNotFound):
                # It has ended since its row was read.
                continue
            yield verdict
        if len(rows) < _PAGE:
            return
        after = rows[-1][0]


async def look(connection: Connection, app: App, instance_id: UUID) -> Verdict:
    """Return how one instance stands; raises ``InstanceNotFound`` and ``InstanceCompleted``."""
    found, _ = await queries.instance(connection, instance_id)
    if found.app != app.name or found.subflow == "run":
        raise InstanceNotFound(instance_id)
    if found.execution_status == "closed":
        raise InstanceCompleted(instance_id)
    row = _Row(
        instance_id,
        found.workflow,
        found.correlation_key,
        found.program_hash,
        found.version,
        found.is_initialized,
        found.is_suspended,
    )
    return await _verdict(connection, Migration(app), row)


async def migrate(
    run: Run,
    held: HeldInstance,
    app: App,
    *,
    by: str,
    why: str | None,
    program_key: str,
    state_encoding: StateEncoding,
) -> Verdict:
    """Move an instance in the hands of a client, if it can be moved, and return how it stood before."""
    state = held.state
    if held.app != app.name:
        raise InstanceNotFound(held.instance_id)
    if state is None:
        return await run(lambda connection: look(connection, app, held.instance_id))

    async def judge(connection: Connection) -> tuple[Verdict, list[Event]]:
        migration = Migration(app)
        await _know(connection, migration, state)
        was_cut_short = await _was_cut_short(connection, held.instance_id)
        return _judged(migration, held.instance_id, state, by, why, was_cut_short=was_cut_short)

    verdict, events = await run(judge)
    if events:
        workflow = app.workflows[state.workflow]
        keeping = Keeping(
            state_encoding=workflow.state_encoding or state_encoding, on_completion=workflow.on_completion
        )
        deployed = [
            stored_program(definition, program_key)
            for definition in (*app.workflows.values(), *(it.definition for it in app.routines.values()))
        ]
        await run(lambda connection: _move(connection, held, deployed, events, keeping))
    return verdict


async def _verdict(connection: Connection, migration: Migration, row: _Row) -> Verdict:
    if row.is_initialized:
        state = await history.state_at(connection, row.instance_id)
        if state.execution_status == "closed":
            raise InstanceCompleted(row.instance_id)
        await _know(connection, migration, state)
        was_cut_short = await _was_cut_short(connection, row.instance_id)
        return _judged(migration, row.instance_id, state, "", None, was_cut_short=was_cut_short)[0]
    current = migration.app.workflows.get(row.workflow)
    hindrances: tuple[Obstacle, ...] = ()
    if current is None:
        detail = f"the app has no workflow {row.workflow} any more"
        hindrances = (Obstacle(reason="workflow_gone", detail=detail),)
    elif current.program.hash != row.program_hash:
        program = await _program(connection, migration.app, row.program_hash)
        missing = ["its program"] if program is None else program.unresolved(program.namespace or {})
        if missing:
            hindrances = (Obstacle(reason="names_gone", detail=f"there is no {', '.join(missing)} any more"),)
    return Verdict(
        instance_id=row.instance_id,
        workflow=row.workflow,
        correlation_key=row.correlation_key,
        program_hash=row.program_hash,
        version=0,
        line=None,
        is_current=True,
        is_suspended=row.is_suspended,
        hindrances=hindrances,
    )


def _judged(
    migration: Migration, instance_id: UUID, state: InstanceState, by: str, why: str | None, *, was_cut_short: bool
) -> tuple[Verdict, list[Event]]:
    """Return how a persisted instance stands, and the batch that moves it."""
    is_current = migration.is_current(state)
    events: list[Event] = []
    obstacles: list[Obstacle] = []
    for each in () if is_current else migration.migrate(state, by=by, why=why, was_cut_short=was_cut_short):
        if isinstance(each, Obstacle):
            obstacles.append(each)
        else:
            events.append(each)
    inner = max(state.frames, key=lambda path: path.count("."), default=None)
    verdict = Verdict(
        instance_id=instance_id,
        workflow=state.workflow,
        correlation_key=state.correlation_key,
        program_hash=state.program_hash,
        version=state.version,
        line=None if inner is None else state.frames[inner].line,
        is_current=is_current,
        is_suspended=state.is_suspended,
        hindrances=tuple(migration.hindrances(state)),
        obstacles=tuple(obstacles),
    )
    return verdict, events


async def _was_cut_short(connection: Connection, instance_id: UUID) -> bool:
    """Return whether activities may have run since an instance was persisted, of which nothing is known."""
    cursor = await connection.execute(_SQL["was_cut_short"], {"instance_id": instance_id})
    row = await cursor.fetchone()
    return bool(row and row[0])


async def _know(connection: Connection, migration: Migration, state: InstanceState) -> None:
    """Look up the programs of an instance's frames."""
    for program_hash in {frame.program for frame in state.frames.values()} - migration.programs.keys():
        program = await _program(connection, migration.app, program_hash)
        if program is not None:
            migration.programs[program_hash] = program


async def _program(connection: Connection, app: App, program_hash: str) -> Program | None:
    """Return a stored program, linked to the module of its function as deployed; None if it cannot be read."""
    stored = await stored_programs.find(connection, app.name, program_hash)
    if stored is None:
        return None
    current: Definition | None = app.workflows.get(stored.workflow)
    if stored.starts_with is None:
        routine = app.routines.get(stored.workflow)
        current = None if routine is None else routine.definition
    try:
        return Program.from_json(stored.program, None if current is None else vars(current.module))
    except ProgramUnresolvable:
        return None


async def _unsigned(connection: Connection, app: App, key: str) -> set[str]:
    """Return the hashes of the stored programs that the key has not signed."""
    cursor = await connection.execute(_SQL["program_hashes"], {"app": app.name})
    found = set[str]()
    for (program_hash,) in await cursor.fetchall():
        stored = await stored_programs.find(connection, app.name, program_hash)
        program = await _program(connection, app, program_hash)
        if stored is not None and program is not None:
            is_signed = stored.signature is not None and program.verify(key.encode(), stored.signature)
            found |= set() if is_signed else {program_hash}
    return found


async def _move(
    connection: Connection,
    held: HeldInstance,
    deployed: Sequence[StoredProgram],
    events: list[Event],
    keeping: Keeping,
) -> None:
    """Commit the batch that moves an instance, with its row and its programs."""
    assert held.state is not None  # noqa: S101 - There are no events otherwise.
    state = fold(events, held.state)
    batch = Batch(
        instance_id=held.instance_id,
        host_id=held.host_id,
        lock_token=held.lock_token,
        expected_version=held.version,
        events=events,
        metadata={"app": held.app},
        state=state,
        keeping=keeping,
    )
    try:
        await _write(connection, held, deployed, batch)
    except WrongExpectedVersion:
        # The connection may have broken after the commit: then all is done already.
        found = [recorded.event async for recorded in read_stream(connection, held.instance_id, held.version + 1)]
        if found != events:
            raise


async def _write(connection: Connection, held: HeldInstance, deployed: Sequence[StoredProgram], batch: Batch) -> None:
    state = batch.state
    async with connection.transaction():
        used = {frame.program for frame in state.frames.values()}
        await stored_programs.save(connection, held.app, [each for each in deployed if each.program_hash in used])
        written = await write(connection, held.app, [batch])
        for error in (*written.refused.values(), *written.spoilt.values()):
            raise error
        if written.late:
            raise StorageError("other transactions got in the way: try again")
        await connection.execute(
            _SQL["migrate_row"], {"instance_id": held.instance_id, "program_hash": state.program_hash}
        )
        marks = state.bookmarks
        await connection.execute(
            _SQL["migrate_bookmarks"],
            {
                "instance_id": held.instance_id,
                "names": list(marks),
                "lines": [mark.line for mark in marks.values()],
            },
        )
