"""Subflows: what ``run``, ``start``, ``spawn`` and ``continue_as_new`` do to an instance, and how subflows end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast
from uuid import UUID

import orjson

from holdfast.events.types import (
    BookmarkClosed,
    BookmarkOpened,
    InstanceCancelled,
    InstanceCompleted,
    InstanceContinued,
    InstanceFaulted,
    InstanceStarted,
    SubflowEnded,
    SubflowStarted,
    Where,
)
from holdfast.processor.core import bookmarks
from holdfast.processor.core.machine import Ask
from holdfast.processor.core.outcomes import Raised, Returned
from holdfast.processor.engine import family
from holdfast.processor.engine.asks import Asks
from holdfast.processor.engine.inner_streams import Ending, Inner, start_message_id
from holdfast.processor.engine.persistence_point import decode_value, encode_value
from holdfast.processor.engine.provider import Child, PersistenceProvider
from holdfast.processor.engine.runtime import Runtime
from holdfast.processor.engine.writer import Writer
from holdfast.processor.language.awaitables import ContinueAsNew, SubflowCall
from holdfast.processor.language.workflow import Workflow
from holdfast.projections.instance import InstanceState
from holdfast.schemas.errors import AppError, Cancelled, ContinuedAsNew, ScopeError, SubflowFailed, UnreadableValue
from holdfast.schemas.message import Envelope, Message
from holdfast.schemas.results import SubflowResult
from holdfast.schemas.words import Outcome, SubflowMode

States = Mapping[UUID, InstanceState]


class Subflows:
    """Serves the subflow calls of one instance, of which ``workflow`` was made."""

    def __init__(self, runtime: Runtime, asks: Asks, writer: Writer, workflow: Workflow) -> None:
        self._runtime = runtime
        self._asks = asks
        self._writer = writer
        self._workflow = workflow
        self._types = runtime.app.types

    # Within the instance's own transactions.

    def run(self, ask: Ask) -> None:
        """Answer a ``run`` with a frame of the subflow's program."""
        call = cast("SubflowCall[Any]", ask.awaited)
        instance_id = self._runtime.environment.new_id()
        try:
            workflow, start, message = self._prepare(call.workflow, call.input, instance_id)
            _check_fits(workflow, ask)
            holder = self._writer.inner.around(ask.path)
            path = self._asks.enter(ask, workflow.program, {workflow.parameter: message}, str(instance_id))
        except Exception as error:  # noqa: BLE001  Whatever keeps it from beginning is the caller's to handle.
            self._asks.answer(ask, Raised(error))
            return
        parent = self._writer.instance_id if holder is None else holder.instance_id
        started = InstanceStarted(
            workflow=workflow.name,
            program_hash=workflow.program.hash,
            correlation_key=start.key,
            message_id=start.message_id,
            message_type=start.type,
            body=orjson.loads(start.body),
            parent=str(parent),
            subflow="run",
        )
        self._writer.inner.add(Inner(instance_id=instance_id, holder=parent, path=path, started=started))
        self._record_start(ask, instance_id, workflow, start, "run")

    def leave(self) -> None:
        """Record how subflows ended that ran within the instance's transactions."""
        for left in self._asks.machine.left:
            ending = self._ending(left.outcome)
            inner = self._writer.inner.end(UUID(left.child), ending)
            self._writer.record(
                SubflowEnded(
                    where=self._caller(left.path),
                    instance_id=left.child,
                    workflow=inner.state.workflow or (inner.started.workflow if inner.started else ""),
                    outcome=_OUTCOMES[type(ending)],
                    result=ending.result if isinstance(ending, InstanceCompleted) else None,
                    error=None if isinstance(ending, InstanceCompleted) else getattr(ending, "error", None),
                )
            )

    def restore(self, states: States) -> None:
        """Take up the subflows whose frames were stored, in these states."""
        for path, frame in self._writer.state.frames.items():
            child = frame.variables.get("$child")
            if isinstance(child, str):
                state = states[UUID(child)]
                holder = UUID(state.parent) if state.parent is not None else self._writer.instance_id
                self._writer.inner.add(Inner(instance_id=UUID(child), holder=holder, path=path, state=state))

    # As instances of their own.

    def start(self, ask: Ask) -> None:
        """Have the next commit start a subflow, and wait for its end; raises what keeps it from being started."""
        instance_id = self._bear(ask)
        self._writer.record(
            BookmarkOpened(
                where=ask.where,
                bookmark=bookmarks.prefix(ask),
                kind="child",
                message_type=SubflowResult.message_type,
                correlation_key=str(instance_id),
            )
        )

    def spawn(self, ask: Ask) -> bool:
        """Have the next commit start a subflow, and answer with its id; False if there is an exception instead."""
        try:
            self._asks.answer(ask, Returned(self._bear(ask)))
        except Exception as error:  # noqa: BLE001  Whatever keeps it from being started is the caller's to handle.
            self._asks.answer(ask, Raised(error))
            return False
        return True

    def end(self, ask: Ask, result: SubflowResult) -> None:
        """Answer a ``start`` with how its subflow ended."""
        error, value = orjson.loads(result.error), orjson.loads(result.result)
        self._writer.record(
            SubflowEnded(
                where=ask.where,
                instance_id=result.instance_id,
                workflow=result.workflow,
                outcome=result.outcome,
                result=value,
                error=error,
                closes=self._asks.bookmarks_of(ask),
            )
        )
        self._asks.answer(ask, self._outcome(result, value, error))

    def withdraw(self, asks: Sequence[Ask]) -> None:
        """Cancel the subflows whose asks were taken back."""
        for ask in asks:
            for name in self._asks.bookmarks_of(ask):
                mark = self._writer.bookmarks.get(name)
                if mark is not None and mark.kind == "child" and mark.correlation_key is not None:
                    self._writer.record(BookmarkClosed(where=ask.where, bookmark=name))
                    self._command(mark.correlation_key, "cancel")

    def command_all(self, name: family.Name) -> None:
        """Give a command to all subflows that the instance waits for."""
        for child in family.awaited(self._writer.state, self._writer.unwritten.events):
            self._command(child, name)

    # In the instance's place.

    def unwind(self, ask: Ask) -> None:
        """Let the workflow end where it is to go on as a new instance."""
        message = cast("ContinueAsNew", ask.awaited).input
        try:
            self._prepare(self._workflow.name, message, self._writer.instance_id)
        except Exception as error:  # noqa: BLE001  What is wrong with the input is the caller's to handle.
            self._asks.answer(ask, Raised(error))
        else:
            self._asks.answer(ask, Raised(ContinuedAsNew(message)))

    def succeed(self, message: Message, reply_to: str | None) -> None:
        """Have the next commit, the last one, start the instance that goes on from here.

        It may answer who is waiting at ``reply_to``, and it is awaited in this one's place.
        """
        instance_id = self._runtime.environment.new_id()
        workflow, start, _ = self._prepare(self._workflow.name, message, instance_id, reply_to)
        awaited_as = self._writer.loaded.awaited_as
        self._add(instance_id, workflow, start, "continued", awaited_as)
        self._writer.record(InstanceContinued(instance_id=str(instance_id)))

    # Parts.

    def _bear(self, ask: Ask) -> UUID:
        call = cast("SubflowCall[Any]", ask.awaited)
        instance_id = self._runtime.environment.new_id()
        workflow, start, _ = self._prepare(call.workflow, call.input, instance_id)
        self._add(instance_id, workflow, start, call.mode, instance_id if call.mode == "start" else None)
        self._record_start(ask, instance_id, workflow, start, call.mode)
        return instance_id

    def _prepare(
        self, name: str, given: Message, instance_id: UUID, reply_to: str | None = None
    ) -> tuple[Workflow, Envelope, Message]:
        """Return a workflow, the message that is to start it and that message as its instance will read it."""
        workflow = self._runtime.app.workflows.get(name)
        if workflow is None:
            raise AppError(f"this app has no workflow {name!r}")
        if not isinstance(given, workflow.start):
            raise TypeError(f"workflow {name} starts with a {workflow.start.__name__}, not with {given!r}")
        start = given.envelope(start_message_id(instance_id), self._writer.trace, reply_to)
        return workflow, start, workflow.start.parse(start)

    def _add(
        self, instance_id: UUID, workflow: Workflow, start: Envelope, mode: SubflowMode, awaited_as: UUID | None
    ) -> None:
        self._writer.unwritten.children.append(
            Child(
                instance_id=instance_id,
                workflow=workflow.name,
                program_hash=workflow.program.hash,
                correlation_key=start.key,
                partition=self._writer.loaded.partition,
                mode=mode,
                start=start,
                awaited_as=awaited_as,
            )
        )

    def _record_start(
        self, ask: Ask, instance_id: UUID, workflow: Workflow, start: Envelope, mode: SubflowMode
    ) -> None:
        self._writer.record(
            SubflowStarted(
                where=ask.where,
                instance_id=str(instance_id),
                workflow=workflow.name,
                correlation_key=start.key,
                mode=mode,
            )
        )

    def _command(self, child: str, name: family.Name) -> None:
        writer = self._writer
        writer.unwritten.deposits.append(family.commanded(writer.instance_id, writer.state.version, child, name))

    def _caller(self, path: str) -> Where:
        """Return the place of the ask that the frame at ``path`` answers."""
        above, _, last = path.rpartition(".")
        caller = self._asks.machine.frames.get(above)
        step, line = (0, 0) if caller is None else (caller.step, caller.line)
        return Where(path if "-" in last else above, step, line)

    def _ending(self, outcome: Returned | Raised) -> Ending:
        if isinstance(outcome, Returned):
            return InstanceCompleted(result=encode_value(outcome.value, self._types))
        error = encode_value(outcome.error, self._types)
        if isinstance(outcome.error, Cancelled):
            return InstanceCancelled(error=error)
        return InstanceFaulted(error=error)

    def _outcome(self, result: SubflowResult, value: Any, error: Any) -> Returned | Raised:
        try:
            if result.outcome == "completed":
                return Returned(decode_value(value, self._types))
            raised = decode_value(error, self._types)
        except UnreadableValue as unreadable:
            return Raised(unreadable)
        if not isinstance(raised, Exception):
            # A BaseException tells of the subflow's own end, and is not to end its caller too.
            raised = SubflowFailed(result.workflow, result.outcome)
        return Raised(raised)


def _check_fits(workflow: Workflow, ask: Ask) -> None:
    if workflow.persistence != "in_memory":
        raise ScopeError(
            what=f"run() of {workflow.name}, which has transactions of its own",
            mend="Use start() to call it, or make it persistence='in_memory'.",
            line=ask.line,
        )


_OUTCOMES: Mapping[type[Ending], Outcome] = {
    InstanceCompleted: "completed",
    InstanceFaulted: "faulted",
    InstanceCancelled: "cancelled",
}


async def inner_states(provider: PersistenceProvider, state: InstanceState | None) -> dict[UUID, InstanceState]:
    """Return the states of the subflows that run within an instance in that state; raises what the store answers."""
    found: dict[UUID, InstanceState] = {}
    looked_at = [] if state is None else [state]
    while wanted := [UUID(i) for s in looked_at for i, child in s.subflows.items() if child.mode == "run"]:
        looked_at = []
        for instance_id, answer in zip(wanted, await provider.read_states(wanted), strict=True):
            if isinstance(answer, Exception):
                raise answer
            found[instance_id] = answer
            looked_at.append(answer)
    return found
