"""The participants of one loaded instance: what they give at a persistence point, and get back on load.

The variables that the workflow promotes go the same way as values for queries.

On a save all are asked for their values first, and then write in the transaction of the persistence point, once
everything else of the batch is known. On a load it is the other way round: all read in a transaction of their own, and
then get the values back. Whatever one of them raises is treated like an exception that the workflow let out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import orjson

from holdfast.events.types import Json, Persisted, Reason, Where
from holdfast.processor.core.machine import ROOT, Machine
from holdfast.processor.engine.activities import ends_the_task
from holdfast.processor.engine.deadline import OutOfTime, within
from holdfast.processor.engine.promotion import plain
from holdfast.processor.engine.provider import Loaded
from holdfast.processor.engine.runtime import Runtime
from holdfast.processor.engine.unhandled import UnhandledError
from holdfast.processor.engine.user_sql import UserSql
from holdfast.processor.language.participant import InstanceView, Participant
from holdfast.projections.instance import InstanceState
from holdfast.schemas.errors import NotPersistable, ParticipantError, ProgramUnresolvable, StorageError
from holdfast.schemas.identifiers import storable
from holdfast.schemas.values import decode, encode


class Participants:
    """One object of each participant class of the instance's workflow, from ``load`` to ``drop``.

    ``objects`` are these, by class. ``are_there`` says whether the instance has anything to give or to take beside its
    variables.
    """

    def __init__(self, runtime: Runtime, loaded: Loaded) -> None:
        self._runtime = runtime
        self._loaded = loaded
        self._kinds = runtime.app.participants_of(loaded.workflow)
        workflow = runtime.app.workflows.get(loaded.workflow)
        self._promote = () if workflow is None else workflow.promote
        self.are_there = bool(self._kinds or self._promote)
        self._collected: Mapping[str, Any] = {}
        self.objects: dict[type[Participant], Participant] = {}

    def drop(self) -> None:
        """Forget the objects; what they hold was never persisted."""
        self.objects = {}

    async def load(self, state: InstanceState, where: Where) -> None:
        """Make the objects, if they are not there, and give them what was persisted."""
        if len(self.objects) == len(self._kinds):
            return
        values = decode(state.values, self._runtime.app.types)
        with _unhandled(where):
            objects = {kind: kind() for kind in self._kinds}
            if state.version > 0:
                reading = [each for kind, each in objects.items() if kind.on_load is not Participant.on_load]
                if reading:
                    await self._read(reading, self._view(state, None, values))
                for each in objects.values():
                    each.publish(values)
        self.objects = objects

    def collect(self, persisted: Persisted, machine: Machine, state: InstanceState, where: Where) -> Persisted:
        """Return the event that closes a batch with the values that changed since ``state``.

        Raises ``NotPersistable`` with the value's name and who gave it.
        """
        givers = dict.fromkeys(self._promote, f"workflow {self._loaded.workflow}")
        variables = machine.frames[ROOT].variables
        write_only = {name: variables[name] for name in self._promote if name in variables}
        read_write: dict[str, Any] = {}
        with _unhandled(where):
            for kind, each in self.objects.items():
                values = each.collect()
                for name in (*values.read_write, *values.write_only):
                    _claim(name, f"participant {kind.__name__}", givers)
                read_write.update(values.read_write)
                write_only.update(values.write_only)
        try:
            trees = encode(read_write, self._runtime.app.types)
            promoted = {name: plain(value, name) for name, value in write_only.items()}
        except NotPersistable as error:
            raise _named(error, givers[error.variable]) from None
        self._collected = read_write
        return replace(
            persisted,
            values=None if not self._kinds or _same(trees, state.values) else trees,
            promoted=None if _same(promoted, state.promoted) else promoted,
        )

    async def save(self, sql: UserSql, state: InstanceState, reason: Reason, where: Where) -> None:
        """Let those write that want to; ``state`` is that after the batch."""
        writing = [each for kind, each in self.objects.items() if kind.on_save is not Participant.on_save]
        if not writing:
            return
        view = self._view(state, reason, self._collected)
        unit = await sql.unit()
        with _unhandled(where):
            for each in writing:
                async with unit.savepoint() as transaction:
                    await sql.bound(each.on_save(transaction, view), where)

    async def _read(self, reading: list[Participant], view: InstanceView) -> None:
        limit = self._runtime.settings.transaction_timeout

        async def read() -> None:
            async with self._runtime.provider.own_transaction() as transaction:
                for each in reading:
                    await each.on_load(transaction, view)

        try:
            await within(self._runtime.environment, limit, read())
        except OutOfTime:
            raise TimeoutError(f"the participants took more than {limit:g} seconds to load") from None

    def _view(self, state: InstanceState, reason: Reason | None, values: Mapping[str, Any]) -> InstanceView:
        return InstanceView(
            instance_id=self._loaded.instance_id,
            workflow=self._loaded.workflow,
            correlation_key=self._loaded.correlation_key,
            version=state.version,
            status=state.execution_status,
            reason=reason,
            values=values,
        )


@contextmanager
def _unhandled(where: Where) -> Iterator[None]:
    """Let what user code raises be known as such; what says that the store or a type is gone stays what it is."""
    try:
        yield
    except BaseException as error:
        known = (UnhandledError, StorageError, NotPersistable, ProgramUnresolvable)
        if isinstance(error, known) or ends_the_task(error):
            raise
        raise UnhandledError(error, where) from error


def _claim(name: object, giver: str, givers: dict[str, str]) -> None:
    if not isinstance(name, str) or not name or storable(name) != name:
        raise ParticipantError(f"{giver} names a value {name!r}: use text without NUL characters")
    if name in givers:
        who = " and ".join(dict.fromkeys((givers[name], giver)))
        raise ParticipantError(f"two values are named {name!r}, given by {who}: rename one")
    givers[name] = giver


def _named(error: NotPersistable, giver: str) -> NotPersistable:
    """Return an error that says who gave the value."""
    return NotPersistable(
        variable=error.variable,
        path=error.path,
        type_name=error.type_name,
        mend=f"It is a value of {giver}. {error.mend}".removesuffix(". "),
    )


def _same(values: Mapping[str, Json], stored: Mapping[str, Json]) -> bool:
    """Tell whether values are stored already; as text, for 1 and True are equal otherwise."""
    return orjson.dumps(values) == orjson.dumps(stored)
