"""The activities that one instance's frames call: one after the other, or side by side in a ``gather``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from holdfast.events.types import ActivityCompleted, ActivityFailed
from holdfast.processor.core.machine import Ask
from holdfast.processor.core.outcomes import Raised, Returned
from holdfast.processor.engine import activities
from holdfast.processor.engine.activities import Postponed, Result
from holdfast.processor.engine.asks import Asks, call_of, where
from holdfast.processor.engine.deadline import OutOfTime, within
from holdfast.processor.engine.doubt import Doubt
from holdfast.processor.engine.persistence_point import encode_value
from holdfast.processor.engine.provider import UnitOfWork
from holdfast.processor.engine.retries import Retries
from holdfast.processor.engine.runtime import Runtime
from holdfast.processor.engine.scopes import Scopes
from holdfast.processor.engine.side_by_side import Ended, SideBySide
from holdfast.processor.engine.unhandled import UnhandledError
from holdfast.processor.engine.writer import Writer
from holdfast.processor.language.activity import Activity
from holdfast.processor.language.awaitables import ActivityCall, Defer
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
        writer.before_commit.append(self._do_pending_work)

    @property
    def must_end(self) -> bool:
        """Whether something runs that must not run twice, so that the burst has to wait for its end."""
        return bool(self._must_end())

    async def serve(self, calls: Sequence[Ask]) -> None:
        """Bring at least one of the calls that are pending to its end, or to a wait."""
        if len(calls) == 1 and not self._running and self.retries.seconds() is None:
            await self._run_alone(calls[0])
        else:
            await self._run_side_by_side([ask for ask in calls if ask not in self._running])

    async def defer(self, ask: Ask) -> None:
        """Take in pending work."""
        call = cast("Defer", ask.awaited).call
        activity = self._runtime.app.activities.get(call.activity)
        if activity is None or not activity.is_record:
            error = ScopeError(
                what=f"{call.activity} is deferred but is no record activity",
                mend="Pending work runs in the transaction of the next persistence point: let it take a Transaction.",
                line=ask.line,
            )
            self._asks.answer(ask, Raised(error))
            return
        self._writer.unwritten.deferred.append((ask, call))
        self._asks.answer(ask, Returned())

    async def withdraw(self, asks: Sequence[Ask]) -> None:
        """Cancel the activities of asks that were taken back, and record how they ended."""
        for ended in await self._running.cancel([ask.path for ask in asks]):
            await self.end(*ended)
        for ask in asks:
            attempts = self.retries.attempts(ask)
            if attempts:
                await self.end(ask, Raised(Cancelled()), attempts)

    async def finish(self) -> None:
        """Wait for what must not run twice, so that what came of it is known when the burst goes back."""
        for ask, outcome, attempts in await self._running.end(self._must_end()):
            if isinstance(outcome, Returned):
                self.record(ask, outcome, attempts)

    async def stop(self) -> None:
        """Cancel all: the burst is over."""
        await self._running.stop()

    async def _run_alone(self, ask: Ask) -> None:
        await self.commit_earlier(ask)
        activity = self._activity(ask)
        if activity is None:
            self._asks.answer(ask, Raised(AppError(f"this app has no activity {call_of(ask).activity!r}")))
            return
        await self._doubt.intend([ask])
        running = self._run(activity, ask, await self._writer.sql.unit() if activity.is_record else None)
        self.are_awaited = True
        try:
            outcome, attempts = await self._scopes.bound(ask, running)
        except TimeoutError as error:
            outcome, attempts = Raised(error), self.retries.attempts(ask) + 1
        finally:
            self.are_awaited = False
        await self.end(ask, outcome, attempts)

    async def _run_side_by_side(self, asks: Sequence[Ask]) -> None:
        """Start what does not run yet, and wait for the first to end; record activities run one at a time."""
        if asks:
            await self.commit_earlier(asks[0])
            await self._doubt.intend(asks)
        records: list[Ask] = []
        for ask in asks:
            activity = self._activity(ask)
            if activity is None or activity.is_record:
                records.append(ask)
            else:
                self._running.start(ask, self._run(activity, ask, None), can_be_cancelled=activity.is_async)
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
            stopped = await self._running.cancel([ask.path for ask in self._running if self._scopes.serves(ask)])
            ended = [(ask, Raised(error), attempts) for ask, _, attempts in stopped]
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

    async def _do_pending_work(self) -> None:
        """Run what was deferred, in the transaction that is about to commit."""
        unwritten = self._writer.unwritten
        while unwritten.deferred:
            ask, call = unwritten.deferred.pop(0)
            activity = self._runtime.app.activities[call.activity]
            running = self._run(activity, ask, await self._writer.sql.unit(), call)
            outcome, attempts = await self._writer.sql.bound(running, where(ask))
            if not isinstance(outcome, Returned):
                raise UnhandledError(outcome.error, where(ask))
            self.record(ask, outcome, attempts, call)

    async def _run(
        self, activity: Activity[Any, Any], ask: Ask, unit: UnitOfWork | None, call: ActivityCall[Any] | None = None
    ) -> Result:
        """Run what an ask calls, or the ``call`` that it deferred, to its end or to a wait that may be a timer's."""
        attempts = self.retries.attempts(ask)
        while True:
            outcome, attempts = await activities.run(
                activity,
                call or call_of(ask),
                instance_id=self._writer.instance_id,
                idempotency_key=self._asks.key(ask),
                unit=unit,
                environment=self._runtime.environment,
                attempt=attempts,
                participants=self._writer.participants.objects,
            )
            if not isinstance(outcome, Postponed) or (call is None and self._scopes.may_idle(ask)):
                return outcome, attempts
            await self._runtime.environment.sleep(outcome.seconds)

    async def end(self, ask: Ask, outcome: Returned | Raised | Postponed, attempts: int) -> None:
        """Record how an activity ended, and answer its ask if it has not been taken back meanwhile."""
        if isinstance(outcome, Postponed):
            if self._asks.is_pending(ask):
                self.retries.begin(ask, outcome.error, outcome.seconds, attempts)
                return
            outcome = Raised(outcome.error)
        self.retries.close(ask)
        self._writer.unwritten.has_activity = True
        self.record(ask, outcome, attempts)
        if not self._asks.is_pending(ask):
            return
        self._asks.answer(ask, outcome)
        activity = self._activity(ask)
        if activity is not None and activity.persist_on_close and self._scopes.may_persist(ask):
            await self._writer.persist("persist_on_close", self._asks.machine)

    def record(
        self, ask: Ask, outcome: Returned | Raised, attempts: int, call: ActivityCall[Any] | None = None
    ) -> None:
        """Record how an activity ended: the one that the ask calls, or another ``call`` in its place."""
        call = call or call_of(ask)
        about: dict[str, Any] = {
            "where": where(ask),
            "activity": call.activity,
            "idempotency_key": self._asks.key(ask),
            "attempts": attempts,
        }
        types = self._runtime.app.types
        if isinstance(outcome, Returned):
            activity = self._runtime.app.activities.get(call.activity)
            is_record = activity is not None and activity.is_record
            result = encode_value(outcome.value, types)
            completed = ActivityCompleted(**about, result=result, is_record=is_record)
            self._writer.record(completed)
            self._runtime.counts.activities_completed += 1
            self._doubt.know(completed, outcome)
        else:
            self._writer.record(ActivityFailed(**about, error=encode_value(outcome.error, types)))
            self._runtime.counts.activities_failed += 1

    def _must_end(self) -> list[str]:
        running = [(ask.path, self._activity(ask)) for ask in self._running]
        return [path for path, activity in running if activity is not None and not activity.repeatable]

    def _activity(self, ask: Ask) -> Activity[Any, Any] | None:
        return self._runtime.app.activities.get(call_of(ask).activity)
