"""A workflow run without a persistence provider: in one go, with nothing that outlives it.

There is no store, no mailbox and no lock. Activities run one after the other; time passes at once when all wait for it.
What makes no sense without a store is refused with ``PersistenceRequired``: for a workflow that says so by
``transaction``, ``transacted_receive``, ``compensable`` or an activity with ``persist_on_close``, before anything runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, NoReturn
from uuid import UUID

from holdfast.processor.core import bookmarks
from holdfast.processor.core.machine import Ask, Machine
from holdfast.processor.core.outcomes import Raised, Returned
from holdfast.processor.engine import activities
from holdfast.processor.language.app import App
from holdfast.processor.language.awaitables import (
    ActivityCall,
    Checkpoint,
    ContinueAsNew,
    Defer,
    Enter,
    Leave,
    Reply,
    Send,
    SubflowCall,
    Suspend,
)
from holdfast.processor.language.participant import Participant
from holdfast.processor.language.workflow import Workflow
from holdfast.processor.testing.clock import Clock
from holdfast.processor.testing.stand_ins import ActivityRun, StandIns, staged
from holdfast.schemas.errors import AppError, PersistenceRequired
from holdfast.schemas.identifiers import idempotency_key
from holdfast.schemas.message import Message

NOBODY = UUID(int=0)
"""Stands in for the id of an instance where there is none."""


@dataclass(slots=True)
class Execution:
    """What came of a workflow that ran without a provider.

    ``result`` is what it returned, ``sent`` are the messages that it sent, ``activity_runs`` the attempts of its
    activities, all in order; ``ended`` is the time at its end, in UTC, if it began with the year 2026.
    """

    result: Any = None
    sent: list[Message] = field(default_factory=list)
    activity_runs: list[ActivityRun] = field(default_factory=list)
    ended: datetime | None = None


async def execute(
    app: App, message: Message, *, received: Sequence[Message] = (), stand_ins: StandIns | None = None
) -> Execution:
    """Run the workflow that a message starts, without a persistence provider, and return what came of it.

    ``received`` are the messages that it will receive; each is there from the beginning. ``stand_ins`` are called in
    place of activities. Raises ``PersistenceRequired`` for what needs a store, ``AppError`` if the message starts
    no workflow or if a message that is waited for is not among ``received``, and what the workflow itself raises.
    """
    app.check()
    workflow = app.starts.get(message.message_type)
    if workflow is None:
        raise AppError(f"no workflow of app {app.name} starts with {message.message_type}")
    _check_needs(workflow)
    clock = _Leaping()
    execution = Execution()
    stage = staged(app, stand_ins or {}, clock.work, execution.activity_runs)
    machine = Machine.start(
        workflow.program, {workflow.parameter: message}, lambda name: stage.routines[name].definition.program
    )
    participants = {kind: kind() for kind in app.participants_of(workflow.name)}
    await _Run(stage, clock, machine, execution, list(received), participants).to_the_end()
    execution.ended = clock.time
    match machine.outcome:
        case Raised(error=error):
            raise error
        case Returned(value=value):
            execution.result = value
    return execution


def _check_needs(workflow: Workflow) -> None:
    if workflow.needs_persistence:
        raise PersistenceRequired(
            f"workflow {workflow.name} uses a scope or an activity that needs a persistence provider, and there is none"
        )


class _Leaping(Clock):
    """A clock that leaps over every wait."""

    async def sleep(self, seconds: float) -> None:
        self.time += timedelta(seconds=seconds)


@dataclass(slots=True)
class _Run:
    app: App
    clock: Clock
    machine: Machine
    execution: Execution
    received: list[Message]
    participants: dict[type[Participant], Participant]
    asks: dict[str, tuple[Ask, datetime]] = field(default_factory=dict)

    async def to_the_end(self) -> None:
        """Let the machine go on until its workflow has ended."""
        while True:
            new = self.machine.advance()
            for path in self.machine.withdrawn:
                del self.asks[path]
            self.asks |= {ask.path: (ask, self.clock.time) for ask in new}
            if self.machine.outcome is not None:
                return
            served = [ask for ask, _ in self.asks.values() if not bookmarks.waits(ask)]
            for ask in served:
                if isinstance(ask.awaited, SubflowCall) and ask.awaited.mode == "run":
                    self._enter(ask, ask.awaited)
                else:
                    self._answer(ask, await self._serve(ask))
            if not served:
                self._wake()

    def _answer(self, ask: Ask, outcome: Returned | Raised) -> None:
        del self.asks[ask.path]
        self.machine.answer(ask.path, outcome)

    def _enter(self, ask: Ask, call: SubflowCall[Any]) -> None:
        """Run another workflow as a part of this one."""
        workflow = self.app.workflows[call.workflow]
        _check_needs(workflow)
        del self.asks[ask.path]
        self.machine.enter(ask.path, workflow.program, {workflow.parameter: call.input}, workflow.name)

    async def _serve(self, ask: Ask) -> Returned | Raised:
        match ask.awaited:
            case ActivityCall() as call:
                return await self._call(ask, call)
            case Send(message=message) | Reply(message=message):
                self.execution.sent.append(message)
            case Checkpoint() | Enter() | Leave():
                pass
            case SubflowCall(mode=mode):
                self._refuse(ask, f"{mode}()")
            case awaited:
                self._refuse(ask, _NEEDS_A_STORE.get(type(awaited), repr(awaited)))
        return Returned()

    async def _call(self, ask: Ask, call: ActivityCall[Any]) -> Returned | Raised:
        activity = self.app.activities[call.activity]
        if activity.is_record:
            self._refuse(ask, f"record activity {activity.name}")
        attempts = 0
        while True:
            outcome, attempts = await activities.run(
                activity,
                call,
                instance_id=NOBODY,
                idempotency_key=idempotency_key(NOBODY, ask.path, ask.step, ask.visit, call.activity),
                unit=None,
                environment=self.clock,
                attempt=attempts,
                participants=self.participants,
            )
            if not isinstance(outcome, activities.Postponed):
                return outcome
            await self.clock.sleep(outcome.seconds)

    def _refuse(self, ask: Ask, what: str) -> NoReturn:
        raise PersistenceRequired(f"line {ask.line}: {what} needs a persistence provider, and there is none")

    def _wake(self) -> None:
        """Go on with the first message that somebody waits for; if there is none, with the timer that is due first."""
        opened = [(ask, each) for ask, since in self.asks.values() for each in bookmarks.opened(ask, since)]
        for message in self.received:
            for ask, each in opened:
                if (each.message_type, each.correlation_key) == (message.message_type, message.correlation_key):
                    self.received.remove(message)
                    self._answer(ask, bookmarks.by_message(ask, each.bookmark, message))
                    return
        timers = [(datetime.fromisoformat(each.due), n) for n, (_, each) in enumerate(opened) if each.due is not None]
        if not timers:
            waits = ", ".join(f"{each.message_type} {each.correlation_key!r}" for _, each in opened)
            raise AppError(f"the workflow waits for {waits}, which is not among the messages that it receives")
        due, number = min(timers)
        ask, each = opened[number]
        self.clock.time = max(self.clock.time, due)
        self._answer(ask, bookmarks.by_timer(ask, each.bookmark))


_NEEDS_A_STORE = {Defer: "defer()", Suspend: "suspend()", ContinueAsNew: "continue_as_new()"}
