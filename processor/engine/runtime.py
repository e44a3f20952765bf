"""What every live instance of a host shares: the app, the store behind batchers, the clock."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol
from uuid import UUID

from holdfast.processor import tracing
from holdfast.processor.core.compensation import BY_HASH
from holdfast.processor.engine.batcher import Batcher
from holdfast.processor.engine.counts import Counts
from holdfast.processor.engine.environment import Environment
from holdfast.processor.engine.peers import Host
from holdfast.processor.engine.provider import (
    Batch,
    Committed,
    Intake,
    Keeping,
    Loaded,
    Outgoing,
    PersistenceProvider,
    Registration,
    Route,
    StoredMessage,
    StoredProgram,
)
from holdfast.processor.engine.wakeups import Mail, Wakeups
from holdfast.processor.language.app import App
from holdfast.processor.language.definition import Definition
from holdfast.processor.language.program import FORMAT, Program
from holdfast.processor.language.routine import Routine, reachable
from holdfast.processor.language.workflow import Workflow
from holdfast.schemas.activity_messages import ActivityHeartbeat
from holdfast.schemas.errors import AppError, ProgramUnknown, ProgramUnresolvable
from holdfast.schemas.message import Envelope, Message
from holdfast.schemas.settings import Settings
from holdfast.schemas.values import declarable

READ_GROUP = 200
"""How many routes, registrations, loads and looks go into one round trip at most."""


class Publish(Protocol):
    """Who is told of messages that were committed; ``fresh`` says that the instance began in this host."""

    def __call__(self, instance_id: UUID, messages: Sequence[Outgoing], *, fresh: bool) -> None: ...


def _publish_nothing(instance_id: UUID, messages: Sequence[Outgoing], *, fresh: bool) -> None:
    """Leave messages in the outbox."""


def _hint_nobody() -> None:
    """Leave what there is to do to the next regular look."""


def _wake_nobody(instance_id: UUID) -> None:
    """Leave an instance to the next regular look."""


def stored_program(definition: Definition, key: str) -> StoredProgram:
    """Return a definition's program as it is stored, signed with the app's program key unless that is empty."""
    program = definition.program
    return StoredProgram(
        program_hash=program.hash,
        workflow=definition.name,
        format=FORMAT,
        program=program.to_json(),
        starts_with=definition.start.message_type if isinstance(definition, Workflow) else None,
        receives=tuple(sorted(definition.receives)),
        signature=program.sign(key.encode()) if key else None,
        expected_lifetime=definition.expected_lifetime if isinstance(definition, Workflow) else None,
        reuse_key=isinstance(definition, Workflow) and definition.frees_key,
    )


class Runtime:
    """One host's means; ``open`` gives it a lease, under an id that is new each time.

    ``publish``, ``hint`` and ``wake`` are told after commits; a worker sets them to its relay and detection,
    and its engine takes the last. ``committed_at`` is when the latest group was committed and ``renewed_at`` when the
    lease was renewed, on the monotonic clock. ``messages`` are the message types by name, those included that only
    older programs name. ``tracer`` is None where nobody wants spans.
    """

    def __init__(
        self,
        app: App,
        provider: PersistenceProvider,
        environment: Environment,
        settings: Settings,
        *,
        machine: str,
        process_id: int,
    ) -> None:
        self.app = app
        self.provider = provider
        self.environment = environment
        self.settings = settings
        self.publish: Publish = _publish_nothing
        self.hint: Callable[[], None] = _hint_nobody
        self.wake: Callable[[UUID], None] = _wake_nobody
        self.lease_in_doubt = asyncio.Event()
        self.counts = Counts()
        self.tracer = tracing.tracer()
        self.committed_at = self.renewed_at = environment.monotonic()
        self._be(environment.new_id())
        self.app_exchange = f"holdfast.{app.name}"
        self.out_exchange = f"{self.app_exchange}.out"
        self.activity_exchange = f"{self.app_exchange}.activities"
        self._machine = machine
        self._process_id = process_id
        self._programs = {w.program.hash: (w, w.program) for w in app.workflows.values()}
        self.idle_policies = {w.name: w.idling.on(settings) for w in app.workflows.values()}
        self.messages: dict[str, type[Message]] = dict(app.messages)
        self._routines = dict(app.routines)
        self.frame_programs = dict(BY_HASH) | {d.program.hash: d.program for d in self._definitions()}
        self._kept = Keeping(state_encoding=settings.state_encoding)
        self._keeping = {
            w.name: Keeping(state_encoding=w.state_encoding or settings.state_encoding, on_completion=w.on_completion)
            for w in app.workflows.values()
        }
        self._clock_offset = (datetime.min.replace(tzinfo=UTC), 0.0)
        self.commit: Batcher[Batch, Committed] = Batcher(self._commit, limit=settings.group_size)
        self.route: Batcher[Envelope, Route] = Batcher(provider.route, limit=READ_GROUP)
        self.register: Batcher[Registration, int] = Batcher(self._register, limit=READ_GROUP)
        self.load: Batcher[UUID, Loaded] = Batcher(self._load, limit=READ_GROUP)
        self.look: Batcher[UUID, Wakeups] = Batcher(self._look, limit=READ_GROUP)
        self.find_mail: Batcher[Mail, Sequence[StoredMessage]] = Batcher(provider.find_mail, limit=READ_GROUP)
        self.release: Batcher[Sequence[UUID], None] = Batcher(self._release, limit=READ_GROUP)
        self.beat: Batcher[ActivityHeartbeat, None] = Batcher(self._beat, limit=READ_GROUP)
        self.take_in: Batcher[Intake, Route] = Batcher(provider.take_in, limit=READ_GROUP)

    async def open(self) -> None:
        """Become a new host with a fresh lease and make the app's programs known."""
        app = self.app
        self._be(self.environment.new_id())
        await self.read_clock()
        await self._save_programs(self._definitions())
        await self._know_older_programs()
        await self.provider.open_host(
            Host(
                host_id=self.host_id,
                app=app.name,
                machine=self._machine,
                process_id=self._process_id,
                lease_seconds=self.settings.lease,
                programs=tuple(dict.fromkeys((*self._programs, *self.frame_programs))),
                message_types=tuple(self.messages),
            )
        )
        self.counts.tenures += 1
        self.renewed_at = self.environment.monotonic()

    def _be(self, host_id: UUID) -> None:
        self.host_id = host_id
        self.metadata = {"app": self.app.name, "host": str(host_id)}

    def _definitions(self) -> list[Definition]:
        return [*self.app.workflows.values(), *(r.definition for r in self._routines.values())]

    async def _save_programs(self, definitions: Sequence[Definition]) -> None:
        key = self.settings.program_key
        await self.provider.save_programs([stored_program(definition, key) for definition in definitions])

    def keeping(self, workflow: str) -> Keeping:
        """Return how the store is to keep the instances of a workflow."""
        return self._keeping.get(workflow, self._kept)

    def doubt_lease(self) -> None:
        """Have the lease looked at now: a lock of this host turned out to be lost."""
        self.lease_in_doubt.set()

    async def read_clock(self) -> None:
        """Learn the store's time; between two readings it is carried on by the monotonic clock."""
        self._clock_offset = (await self.provider.now(), self.environment.monotonic())

    def now(self) -> datetime:
        """Return the store's time."""
        then, mark = self._clock_offset
        return then + timedelta(seconds=self.environment.monotonic() - mark)

    def routine(self, name: str) -> Program:
        """Return the program of a routine as it is deployed; ``AppError`` if there is no such routine."""
        routine = self._routines.get(name)
        if routine is None:
            raise AppError(
                f"app {self.app.name} has no routine {name!r}: no program names it, so declare it with "
                f"App({self.app.name!r}, routines=(...))"
            )
        return routine.program

    async def program(self, workflow: str, program_hash: str) -> tuple[Workflow, Program]:
        """Return a program that this host can run, with the workflow that it belongs to.

        A program that this host did not compile itself must carry a valid signature under the app's
        ``program_key``; ``ProgramUnknown`` for any other, ``ProgramUnresolvable`` if names are missing.
        """
        known = self._programs.get(program_hash)
        if known is not None:
            return known
        current = self.app.workflows.get(workflow)
        if current is None:
            raise ProgramUnknown(f"app {self.app.name} has no workflow {workflow!r} here")
        stored = await self.provider.load_program(program_hash)
        program = await self._linked(program_hash, stored, current)
        self._programs[program_hash] = (current, program)
        return current, program

    async def load_routines(self, hashes: Iterable[str]) -> None:
        """See to it that ``frame_programs`` has these programs of running frames; raises as ``program`` does."""
        for program_hash in hashes:
            if program_hash in self.frame_programs:
                continue
            stored = await self.provider.load_program(program_hash)
            if stored is not None and stored.starts_with is not None:
                _, self.frame_programs[program_hash] = await self.program(stored.workflow, program_hash)
                continue
            current = None if stored is None else self._routines.get(stored.workflow)
            if current is None:
                name = program_hash if stored is None else repr(stored.workflow)
                raise ProgramUnknown(f"app {self.app.name} has no routine {name} here")
            self.frame_programs[program_hash] = await self._linked(program_hash, stored, current.definition)

    async def _linked(self, program_hash: str, stored: StoredProgram | None, current: Definition) -> Program:
        """Return a program from the store, linked to the module of the function that is deployed now."""
        title = f"program {program_hash} of {current.kind} {current.name!r}"
        if stored is None:
            raise ProgramUnknown(f"{title} is not stored")
        key = self.settings.program_key.encode()
        program = Program.from_json(stored.program, vars(current.module))
        if not key or stored.signature is None or not program.verify(key, stored.signature):
            raise ProgramUnknown(
                f"{title} was not compiled here and is not signed with "
                "this app's program key; set HOLDFAST_PROGRAM_KEY on all hosts, or run a host with that version"
            )
        missing = program.unresolved(vars(current.module))
        if missing:
            raise ProgramUnresolvable(
                f"{title} needs {', '.join(missing)}, which {current.module.__name__} no longer defines"
            )
        await self._adopt(program)
        return program

    async def _know_older_programs(self) -> None:
        """Make known what the programs name on which instances live, as far as they can run here.

        So a message is known here that only an older program receives.
        """
        if not self.settings.program_key:
            return
        for workflow, program_hash in await self.provider.living_programs():
            # Whoever comes to such an instance says what is wrong with its program.
            with suppress(ProgramUnknown, ProgramUnresolvable):
                await self.program(workflow, program_hash)

    async def runs_elsewhere(self, programs: Iterable[str]) -> bool:
        """Whether another living host can run all of these programs."""
        others = [each for each in {*programs} if each not in BY_HASH]
        return await self.provider.runs_elsewhere(self.host_id, others)

    async def _adopt(self, program: Program) -> None:
        """Make the routines and classes known that an old program names and the deployed ones do not."""
        values = list(program.named(program.namespace or {}))
        named = reachable(values)
        fresh: dict[str, Routine[Any, Any]] = {n: r for n, r in named.items() if n not in self._routines}
        values += (value for routine in fresh.values() for value in routine.definition.named())
        for value in values:
            if isinstance(value, type) and value is not Message and declarable(value):
                self._adopt_class(value)
        if fresh:
            await self._save_programs([routine.definition for routine in fresh.values()])
            self._routines.update(fresh)
            self.frame_programs.update({r.program.hash: r.program for r in fresh.values()})

    def _adopt_class(self, kind: type) -> None:
        # A name that is taken by now means what the deployed programs mean by it.
        with suppress(ValueError):
            self.app.types.add(kind)
        if issubclass(kind, Message):
            self.messages.setdefault(kind.message_type, kind)

    async def _commit(self, batches: Sequence[Batch]) -> Sequence[Committed | Exception]:
        began = self.environment.monotonic()
        answers = await self.provider.commit(batches)
        self.committed_at = self.environment.monotonic()
        self.counts.group(len(batches), self.committed_at - began)
        return answers

    async def _register(self, registrations: Sequence[Registration]) -> Sequence[int | Exception]:
        return await self.provider.register(self.host_id, registrations)

    async def _load(self, instance_ids: Sequence[UUID]) -> Sequence[Loaded | Exception]:
        return await self.provider.load(self.host_id, instance_ids)

    async def _look(self, instance_ids: Sequence[UUID]) -> Sequence[Wakeups]:
        return await self.provider.wakeups(self.host_id, instance_ids)

    async def _release(self, groups: Sequence[Sequence[UUID]]) -> Sequence[None]:
        await self.provider.release(self.host_id, [instance_id for group in groups for instance_id in group])
        return [None] * len(groups)

    async def _beat(self, beats: Sequence[ActivityHeartbeat]) -> Sequence[None]:
        await self.provider.beat(beats)
        return [None] * len(beats)
