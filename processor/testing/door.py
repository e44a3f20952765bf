"""What one host sees of the store: each call is watched, and at one of them the host may die.

A host that died is told nothing any more: whatever it asks of the store, or was asking, ends its task.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from inspect import iscoroutinefunction
from typing import Any, TypeVar
from uuid import UUID

from holdfast.events.types import Persisted
from holdfast.processor.engine.provider import (
    Batch,
    Committed,
    Intake,
    PersistenceProvider,
    Registration,
    Suspension,
    UnitOfWork,
)
from holdfast.processor.language.transaction import Transaction

T = TypeVar("T")

COMMITTING = frozenset(
    {
        "attempt",
        "attempt_burst",
        "beat",
        "commit",
        "load",
        "published",
        "register",
        "release",
        "resume",
        "suspend",
        "take_in",
    }
)
"""The calls after which something else is durable than before.

Not ``lapse``, which every look for work makes and which changes something only where a heartbeat has not come.
"""


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement of a record activity, as it was committed with an instance's persistence point."""

    instance_id: UUID
    query: str
    parameters: Any


@dataclass(frozen=True, slots=True)
class Death:
    """The host that makes the committing call of that number, counted from 1, dies just before it or just after it.

    ``late`` says that its lease still lives when its successor takes the first messages.
    """

    number: int
    after: bool
    late: bool


@dataclass(slots=True)
class Watch:
    """What all hosts of a world did to its store: committing calls in words, and the SQL that they committed."""

    death: Death | None = None
    steps: int = 0
    calls: list[str] = field(default_factory=list)
    committed: list[Statement] = field(default_factory=list)


class Door:
    """A store as one host sees it; ``is_dead`` once the host has died."""

    def __init__(self, store: PersistenceProvider, watch: Watch) -> None:
        self.is_dead = False
        self.watch = watch
        self._store = store

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._store, name)
        return self._watched(name, found) if iscoroutinefunction(found) else found

    def begin(self, host_id: UUID) -> AbstractAsyncContextManager[UnitOfWork]:
        """Open a transaction whose commit is watched too."""
        return self._begin(host_id)

    @asynccontextmanager
    async def _begin(self, host_id: UUID) -> AsyncIterator[UnitOfWork]:
        async with self._store.begin(host_id) as unit:
            yield WatchedUnit(unit, self)

    def _watched(self, name: str, call: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def watched(*args: Any) -> Any:
            return await self.pass_through(name, lambda: call(*args), *args)

        return watched

    async def pass_through(self, name: str, call: Callable[[], Awaitable[T]], *args: Any) -> T:
        """Make a call, unless the host is dead or dies of it."""
        watch = self.watch
        watch.steps += 1
        is_last = False
        if name in COMMITTING and not self.is_dead:
            watch.calls.append(in_words(name, args))
            is_last = watch.death is not None and watch.death.number == len(watch.calls)
        if is_last and watch.death is not None and not watch.death.after:
            self.is_dead = True
        if self.is_dead:
            raise asyncio.CancelledError
        answer = await call()
        watch.steps += 1
        self.is_dead |= is_last
        if self.is_dead:
            raise asyncio.CancelledError
        return answer


class WatchedUnit:
    """A unit of work whose statements are known once they are committed."""

    def __init__(self, unit: UnitOfWork, door: Door) -> None:
        self._unit = unit
        self._door = door
        self._statements: list[tuple[str, Any]] = []
        self._marks: list[int] = []

    @asynccontextmanager
    async def savepoint(self) -> AsyncIterator[Transaction]:
        before = len(self._statements)
        try:
            async with self._unit.savepoint() as transaction:
                yield _WatchedTransaction(transaction, self._statements)
        except BaseException:
            del self._statements[before:]
            raise

    async def mark(self) -> None:
        await self._unit.mark()
        self._marks.append(len(self._statements))

    async def back_to_mark(self) -> None:
        await self._unit.back_to_mark()
        del self._statements[self._marks.pop() :]

    async def drop_mark(self) -> None:
        await self._unit.drop_mark()
        self._marks.pop()

    async def commit(self, batch: Batch) -> Committed:
        async def commit() -> Committed:
            committed = await self._unit.commit(batch)
            self._door.watch.committed += [Statement(batch.instance_id, *each) for each in self._statements]
            return committed

        return await self._door.pass_through("commit", commit, [batch])

    async def rollback(self) -> None:
        await self._unit.rollback()
        self._statements.clear()


class _WatchedTransaction:
    def __init__(self, transaction: Transaction, statements: list[tuple[str, Any]]) -> None:
        self._transaction = transaction
        self._statements = statements

    async def execute(self, query: Any, params: Any = None) -> Any:
        answer = await self._transaction.execute(query, params)
        self._statements.append((str(query), params))
        return answer


def in_words(name: str, args: Sequence[Any]) -> str:
    """Say what a committing call is about to make durable."""
    subject = args[-1] if args else ()
    if name == "commit":
        return "commit of " + ", ".join(map(_batch_in_words, subject))
    if name == "register":
        registrations: Sequence[Registration] = subject
        return "registration of " + ", ".join(f"{r.workflow}/{r.correlation_key}" for r in registrations)
    if name == "take_in":
        intakes: Sequence[Intake] = subject
        return "intake of " + ", ".join(f"{i.envelope.type} {i.envelope.message_id} ({i.verdict})" for i in intakes)
    if name == "suspend":
        suspensions: Sequence[Suspension] = subject
        return "suspension of " + ", ".join(str(s.instance_id) for s in suspensions)
    if name == "attempt_burst":
        return f"count of an attempt of {args[0]} ({subject})"
    word = {"attempt": "count of an attempt", "load": "lock", "published": "forgetting", "release": "unlock"}.get(
        name, name
    )
    objects = subject if isinstance(subject, Sequence) and not isinstance(subject, str) else [subject]
    return f"{word} of " + ", ".join(map(str, objects))


def _batch_in_words(batch: Batch) -> str:
    reasons = [event.reason for event in batch.events if isinstance(event, Persisted)]
    return f"{batch.state.workflow}/{batch.state.correlation_key} ({', '.join(reasons)})"
