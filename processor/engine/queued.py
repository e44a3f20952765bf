"""Activities on queues: requests to activity workers, and what they answer, while the instance waits at bookmarks.

Each attempt is a request of its own, a message that leaves with the commit of its intent. The worker's result comes as
a message to the bookmark ``<frame>.<visit>``, which waits for nothing but the result of that one request; a timer
``…:timeout`` bounds the attempt. After one that failed the call waits as any other does (``engine/retries.py``).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from holdfast.events.types import (
    ActivityRequested,
    BookmarkClosed,
    BookmarkOpened,
)
from holdfast.processor.core import bookmarks
from holdfast.processor.core.outcomes import Raised, Returned
from holdfast.processor.engine.activity_calls import ActivityCalls
from holdfast.processor.engine.arrival import Arrival
from holdfast.processor.engine.asks import Asks
from holdfast.processor.engine.call import Call
from holdfast.processor.engine.persistence_point import decode_value
from holdfast.processor.engine.provider import Outgoing
from holdfast.processor.engine.runtime import Runtime
from holdfast.processor.engine.writer import Writer
from holdfast.processor.language.activity import Activity
from holdfast.projections.instance import fold
from holdfast.schemas.activity_messages import ActivityRequest, ActivityResult
from holdfast.schemas.errors import Cancelled, NotPersistable, UnreadableValue
from holdfast.schemas.identifiers import outgoing_message_id
from holdfast.schemas.values import encode


class QueuedCalls:
    """The calls of one instance that activity workers do."""

    def __init__(self, runtime: Runtime, asks: Asks, writer: Writer, calls: ActivityCalls) -> None:
        self._runtime = runtime
        self._asks = asks
        self._writer = writer
        self._calls = calls

    def serves(self, call: Call) -> bool:
        """Whether a call is of an activity on a queue, or was when it was requested."""
        if call.activity is not None and call.activity.queue is not None:
            return True
        known = self._writer.state.calls.get(call.key)
        return known is not None and known.status == "requested"

    def request(self, call: Call) -> None:
        """Put the request for the next attempt into the batch, and open the bookmarks at which the call waits.

        Raises ``NotPersistable`` for arguments without a stored form, ``OverflowError`` for a timeout out of reach.
        """
        activity = self._runtime.app.activities[call.name]
        request = self._request(call, activity)
        about: dict[str, Any] = {"where": call.where, "activity": activity.name, "idempotency_key": request.call}
        name = bookmarks.prefix(call)
        self._writer.record(
            ActivityRequested(**about, attempt=request.attempt, queue=activity.queue or "", message_id=request.request)
        )
        self._writer.post(
            Outgoing(
                message_id=request.request,
                exchange=self._runtime.activity_exchange,
                routing_key=activity.queue or "",
                type=request.message_type,
                key=request.correlation_key,
                body=request.model_dump_json().encode(),
            )
        )
        self._writer.record(
            BookmarkOpened(
                where=call.where,
                bookmark=name,
                kind="activity",
                message_type=ActivityResult.message_type,
                correlation_key=request.request,
            )
        )
        if request.deadline is not None:
            self._open_timer(call, "timeout", request.deadline)

    async def receive(self, call: Call, arrival: Arrival, result: ActivityResult) -> None:
        """Take the result of the attempt that the call waits for."""
        self._writer.take(arrival)
        for name in self._asks.bookmarks_of(call):
            self._writer.record(BookmarkClosed(where=call.where, bookmark=name))
        await self._end(call, self._outcome(call, result))

    async def time_out(self, call: Call) -> None:
        """Let the attempt fail whose time is over; its timer has been recorded."""
        limit = "" if call.activity is None else f" within {call.activity.timeout}"
        await self._end(call, Raised(TimeoutError(f"activity {call.name} gave no result{limit}")))

    def withdraw(self, calls: Sequence[Call]) -> None:
        """Record that requested calls were cancelled; they cannot be recalled, but their results are late."""
        for call in calls:
            if not self.serves(call):
                continue
            attempts = self._attempts(call)
            if attempts:
                self._calls.record(call, Raised(Cancelled()), attempts)

    async def _end(self, call: Call, outcome: Returned | Raised) -> None:
        """Record how an attempt ended; have it tried again, or answer the call."""
        activity = call.activity
        attempts = self._attempts(call)
        if isinstance(outcome, Raised) and activity is not None and activity.retry.tries_again(attempts, outcome.error):
            self._calls.retries.begin(call, outcome.error, activity.retry.wait(attempts), attempts)
        else:
            await self._calls.end(call, outcome, attempts)

    def _request(self, call: Call, activity: Activity[Any, Any]) -> ActivityRequest:
        writer, args, kwargs = self._writer, list(call.awaited.args), call.awaited.kwargs
        try:
            given: dict[str, Any] = encode({"args": args, "kwargs": kwargs}, self._runtime.app.types)
        except NotPersistable as error:
            raise NotPersistable(
                variable=f"{error.variable} of {activity.name}",
                path=error.path,
                type_name=error.type_name,
                mend=error.mend,
                line=call.line,
            ) from None
        return ActivityRequest(
            request=outgoing_message_id(writer.instance_id, writer.state.version + 1, len(writer.unwritten.outgoing)),
            activity=activity.name,
            **given,
            call=call.key,
            attempt=self._attempts(call) + 1,
            instance_id=writer.instance_id,
            workflow=writer.loaded.workflow,
            reply_to=self._runtime.app_exchange,
            deadline=None if activity.timeout is None else self._runtime.now() + activity.timeout,
            heartbeat=None if activity.heartbeat is None else activity.heartbeat.total_seconds(),
        )

    def _outcome(self, call: Call, result: ActivityResult) -> Returned | Raised:
        tree = result.result if result.outcome == "completed" else result.error
        try:
            value = decode_value(tree, self._runtime.app.types)
        except UnreadableValue as error:
            return Raised(error)
        if result.outcome == "failed" and isinstance(value, BaseException):
            return Raised(value)
        activity = call.activity
        if activity is None or value != tree:
            return Returned(value)
        # Plain JSON may come from a worker that knows no other values.
        try:
            return Returned(activity.returned(tree))
        except ValueError as error:
            return Raised(ValueError(f"the result is not what activity {activity.name} returns: {error}"))

    def _open_timer(self, call: Call, name: str, due: datetime) -> None:
        bookmark = f"{bookmarks.prefix(call)}:{name}"
        self._writer.record(BookmarkOpened(where=call.where, bookmark=bookmark, kind="timer", due=due.isoformat()))

    def _attempts(self, call: Call) -> int:
        """Return how many attempts of a call there were, the one under way included."""
        known = fold(self._writer.unwritten.events, self._writer.state).calls.get(call.key)
        return 0 if known is None else known.attempts
