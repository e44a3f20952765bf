"""Activity calls that must not run twice, and may have run already.

That such a call is intended is durable before it begins, so who finds it open, and does not run it, knows that
it may have run: it is *in doubt*. Then nothing goes on by itself any more; somebody has to say what became of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from holdfast.events.types import ActivityCompleted, ActivityIntended, ActivityResolved, Where
from holdfast.processor.core.outcomes import Raised, Returned
from holdfast.processor.engine.asks import Asks
from holdfast.processor.engine.call import Call
from holdfast.processor.engine.persistence_point import encode_value
from holdfast.processor.engine.runtime import Runtime
from holdfast.processor.engine.writer import Writer
from holdfast.schemas.control import Command
from holdfast.schemas.errors import ActivityInDoubt, NotPersistable
from holdfast.schemas.values import Types, encode


class InDoubt(Exception):
    """The instance stands at calls that may have run; it is to be suspended."""

    def __init__(self, instance_id: UUID, calls: Sequence[str], where: Where) -> None:
        super().__init__(
            f"{' and '.join(calls)} may have run, and must not run twice. Say what became of it: "
            f"holdfast resolve {instance_id} with --done RESULT, --retry or --fail"
        )
        self.where = where


class Unfit(Exception):
    """A resolution does not fit what is in doubt."""


class Doubt:
    """The calls of one instance that must not run twice."""

    def __init__(self, runtime: Runtime, asks: Asks, writer: Writer) -> None:
        self._runtime = runtime
        self._asks = asks
        self._writer = writer
        self._decided: set[str] = set()
        self._known: dict[str, tuple[ActivityCompleted, Returned]] = {}

    def drop(self) -> None:
        """Go back to the last persistence point; what is known to have been done stays known."""
        self._decided.clear()

    async def intend(self, calls: Sequence[Call]) -> None:
        """Make durable that these calls are about to run; all must then be run at once."""
        intended = [call for call in calls if call.must_not_repeat]
        for call in intended:
            self._writer.record(ActivityIntended(where=call.where, activity=call.name, idempotency_key=call.key))
        if intended:
            await self._writer.persist("activity_intent", self._asks.machine)

    def found(self) -> list[Call]:
        """Return the calls in doubt; between bursts these are all that are intended, as none runs then."""
        known = self._writer.state.calls
        if not known:
            return []
        intended = {key for key, call in known.items() if call.status == "intended"} - self._decided
        return [call for call in self._asks.calls() if call.key in intended]

    def check(self) -> None:
        """Raise ``InDoubt`` if anything is in doubt."""
        calls = self.found()
        if calls:
            names = [f"activity {call.name} at line {call.line} (call {call.key})" for call in calls]
            raise InDoubt(self._writer.instance_id, names, calls[0].where)

    # What is known.

    def know(self, event: ActivityCompleted, outcome: Returned) -> None:
        """Keep that a call is done: nobody shall have to be asked, should the burst go back to before its commit."""
        calls = self._writer.state.calls
        if event.idempotency_key in calls and _is_storable(outcome.value, self._runtime.app.types):
            self._known = {key: known for key, known in self._known.items() if key in calls}
            self._known[event.idempotency_key] = event, outcome

    @property
    def knows(self) -> bool:
        """Whether a call is known to be done that the log still has as intended."""
        return any(key in self._writer.state.calls for key in self._known)

    def answer_known(self) -> bool:
        """Answer, at the last persistence point, the calls that are known to be done; False if there is none."""
        calls = [call for call in self.found() if call.key in self._known]
        for call in calls:
            self._settle(call, *self._known[call.key])
        return bool(calls)

    # Resolutions.

    def decide(self, command: Command) -> None:
        """Follow a decision, which is durable with the next persistence point; ``Unfit`` if it makes no sense."""
        call = self._meant(command)
        outcome = self._outcome(call, command)
        event = ActivityResolved(
            where=call.where,
            activity=call.name,
            idempotency_key=call.key,
            decision=command.decision or "fail",
            by=command.by,
            why=command.why,
            result=encode_value(outcome.value, self._runtime.app.types) if isinstance(outcome, Returned) else None,
        )
        self._settle(call, event, outcome)

    def _settle(
        self, call: Call, event: ActivityCompleted | ActivityResolved, outcome: Returned | Raised | None
    ) -> None:
        self._decided.add(event.idempotency_key)
        self._writer.record(event)
        if outcome is not None:
            self._asks.answer(call, outcome)

    def _meant(self, command: Command) -> Call:
        """Return the call that a decision is about."""
        found = {call.key: call for call in self.found()}
        if not found:
            raise Unfit("no activity of the instance is in doubt")
        if command.call is None and len(found) > 1:
            raise Unfit(f"several calls are in doubt, name one: {', '.join(found)}")
        call = command.call or next(iter(found))
        if call not in found:
            raise Unfit(f"call {call} is not in doubt, but {', '.join(found)}")
        return found[call]

    def _outcome(self, call: Call, command: Command) -> Returned | Raised | None:
        """Return what the call is answered with; None if it is to run again."""
        match command.decision:
            case "done":
                return Returned(self._result(call, command.result))
            case "retry":
                return None
            case "fail":
                why = f": {command.why}" if command.why else ""
                return Raised(ActivityInDoubt(f"activity {call.name} was given up as failed by {command.by}{why}"))
        raise Unfit(f"{command.decision!r} is no decision: it is done, retry or fail")

    def _result(self, call: Call, given: Any) -> Any:
        """Return what an activity returned, given as JSON, as the type that it says it returns."""
        try:
            result = given if call.activity is None else call.activity.returned(given)
        except ValueError as error:
            raise Unfit(f"the result is not what activity {call.name} returns: {error}") from None
        if not _is_storable(result, self._runtime.app.types):
            raise Unfit(f"a {type(result).__name__}, which activity {call.name} returns, has no stored form")
        return result


def _is_storable(value: object, types: Types) -> bool:
    try:
        encode({"value": value}, types)
    except NotPersistable:
        return False
    return True
