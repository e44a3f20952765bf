"""The activities that one instance's frames call: one after the other, or side by side in a ``gather``."""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from functools import partial
from typing import Any, cast

from holdfast.events.types import ActivityCompleted
from holdfast.processor.core.machine import Ask
from holdfast.processor.core.outcomes import Raised, Returned
from holdfast.processor.engine import activities
from holdfast.processor.engine.activities import Postponed, Result
from holdfast.processor.engine.asks import Asks
from holdfast.processor.engine.call import Call
from holdfast.processor.engine.deadline import OutOfTime, within
from holdfast.processor.engine.doubt import Doubt
from holdfast.processor.engine.provider import UnitOfWork
from holdfast.processor.engine.retries import Retries
from holdfast.processor.engine.runtime import Runtime
from holdfast.processor.engine.scopes import Scopes
from holdfast.processor.engine.side_by_side import Ended, SideBySide
from holdfast.processor.engine.writer import Writer
from holdfast.processor.language.activity import Activity
from holdfast.processor.language.awaitables import Defer
from holdfast.schemas.errors import AppError, Cancelled, ScopeError


class ActivityCalls:
    """Runs activities, records how they ended and answers their asks.

    While they ``are_awaited`` nothing is on its way to the store: the burst can be cut short.
    """

    def __init__(self, runtime: Runtime, asks: Asks, writer: Writer, scopes: Scopes, doubt: Doubt) -> None:
        self._runtime = runtime
        self._asks = asks
        self._writer = writer
        self._scopes = scopes
        self._doubt = doubt
        self.retries = Retries(runtime, asks, writer)
        self._running = SideBySide()
        self.are_awaited = False

    @property
    def must_end(self) -> bool:
        """Whether something runs that must not run twice, so that the burst has to wait for its end."""
        return any(call.must_not_repeat for call in self._running)

    async def serve(self, calls: Sequence[Call], *, others_wait: bool) -> None:
        """Bring at least one of the calls that are pending to its end, or to a wait.

        ``others_wait`` says that there are calls which are to be tried again meanwhile, once that is due.
        """
        if len(calls) == 1 and not self._running and not others_wait:
            await self._run_alone(calls[0])
        else:
            await self._run_side_by_side([call for call in calls if call not in self._running])

    async def defer(self, ask: Ask) -> None:
        """Take in pending work."""
        call = self._asks.call(ask, cast("Defer", ask.awaited).call)
        if call.activity is None or not call.activity.is_record:
            error = ScopeError(
                what=f"{call.name} is deferred but is no record activity",
                mend="Pending work runs in the transaction of the next persistence point: let it take a Transaction.",
                line=ask.line,
            )
            self._asks.answer(ask, Raised(error))
            return
        self._writer.unwritten.deferred.append(call)
        self._asks.answer(ask, Returned())

    async def withdraw(self, calls: Sequence[Call]) -> None:
        """Cancel the activities of calls that were taken back, and record how they ended."""
        for ended in await self._running.cancel(calls):
            await self.end(*ended)
        for call in calls:
            if call.attempts:
                await self.end(call, Raised(Cancelled()), call.attempts)

    async def finish(self) -> None:
        """Wait for what must not run twice, so that what came of it is known when the burst goes back."""
        for call, outcome, attempts in await self._running.end([c for c in self._running if c.must_not_repeat]):
            if isinstance(outcome, Returned):
                self.record(call, outcome, attempts)

    async def stop(self) -> None:
        """Cancel all: the burst is over."""
        if self._running:
            await self._running.stop()

    async def _run_alone(self, call: Call) -> None:
        if self._writer.unwritten.has_activity:
            await self.commit_earlier(call)
        activity = call.activity
        if activity is None:
            self._asks.answer(call, Raised(AppError(f"this app has no activity {call.name!r}")))
            return
        if call.must_not_repeat:
            await self._doubt.intend([call])
        running = self._run(activity, call, await self._writer.sql.unit() if activity.is_record else None)
        self.are_awaited = True
        try:
            outcome, attempts = await self._scopes.bound(call, running)
        except TimeoutError as error:
            outcome, attempts = Raised(error), call.attempts + 1
        finally:
            self.are_awaited = False
        await self.end(call, outcome, attempts)

    async def _run_side_by_side(self, calls: Sequence[Call]) -> None:
        """Start what does not run yet, and wait for the first to end; record activities run one at a time."""
        if calls:
            await self.commit_earlier(calls[0])
            await self._doubt.intend(calls)
        records: list[Call] = []
        for call in calls:
            activity = call.activity
            if activity is None or activity.is_record:
                records.append(call)
            else:
                self._running.start(call, self._run(activity, call, None), can_be_cancelled=activity.is_async)
        if records:
            await self._run_alone(records[0])
            return
        first = next(iter(self._running))
        if self._writer.sql.is_open and self._scopes.commits_each(first):
            await self._writer.persist("activity_completed", self._asks.machine)
        self.are_awaited = True
        try:
            ended = await self._scopes.bound(first, self._first())
        except TimeoutError as error:
            # What other branches of a gather began before the scope is none of its business.
            stopped = await self._running.cancel([call for call in self._running if self._scopes.serves(call)])
            ended = [(call, Raised(error), attempts) for call, _, attempts in stopped]
        finally:
            self.are_awaited = False
        for each in ended:
            await self.end(*each)

    async def _first(self) -> list[Ended]:
        """Wait for the first that ends, or until a call is to be tried again; return what has ended."""
        seconds = self.retries.seconds()
        if seconds is None:
            return await self._running.first()
        try:
            return await within(self._runtime.environment, seconds, self._running.first())
        except OutOfTime:
            self.retries.fire_due()
            return []

    async def commit_earlier(self, ask: Ask) -> None:
        """Commit an activity's result before the next one starts, where each has a transaction of its own."""
        if self._writer.unwritten.has_activity and self._scopes.commits_each(ask):
            await self._writer.persist("activity_completed", self._asks.machine)

    def _run(self, activity: Activity[Any, Any], call: Call, unit: UnitOfWork | None) -> Coroutine[Any, Any, Result]:
        """Run a call to its end, or to a wait that may be a timer's."""
        return activities.run(
            activity,
            call.awaited,
            instance_id=self._writer.instance_id,
            idempotency_key=call.key,
            unit=unit,
            environment=self._runtime.environment,
            attempt=call.attempts,
            participants=self._writer.participants.objects,
            carried=self._writer.traceparent,
            tracer=self._runtime.tracer,
            may_postpone=partial(self._scopes.may_idle, call),
        )

    async def end(self, call: Call, outcome: Returned | Raised | Postponed, attempts: int) -> None:
        """Record how an activity ended, and answer its call if that has not been taken back meanwhile."""
        if isinstance(outcome, Postponed):
            if self._asks.is_pending(call):
                self.retries.begin(call, outcome.error, outcome.seconds, attempts)
                return
            outcome = Raised(outcome.error)
        if call.attempts:
            self.retries.close(call)
        self._writer.unwritten.has_activity = True
        self.record(call, outcome, attempts)
        if not self._asks.is_pending(call):
            return
        self._asks.answer(call, outcome)
        if call.activity is not None and call.activity.persist_on_close and self._scopes.may_persist(call):
            await self._writer.persist("persist_on_close", self._asks.machine)

    def record(self, call: Call, outcome: Returned | Raised, attempts: int) -> None:
        """Record how an activity ended."""
        event = self._writer.record_end(call, outcome, attempts)
        if isinstance(event, ActivityCompleted) and isinstance(outcome, Returned):
            self._doubt.know(event, outcome)
