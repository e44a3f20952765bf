"""The road of a message, from its delivery to an instance's hands or the inbox.

Messages with one correlation key travel in a *lane*, one after the other; lanes run side by side.
`docs/protocol.md` names the states of a message and what recovers each of them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from itertools import islice
from typing import TYPE_CHECKING, Any
from uuid import UUID

import structlog

from holdfast.processor.engine.arrival import Arrival
from holdfast.processor.engine.failures import STORAGE_PAUSE
from holdfast.processor.engine.holding import Holding
from holdfast.processor.engine.places import NoPlace
from holdfast.processor.engine.provider import AlreadyConsumed, InboxVerdict, Intake, Route, RouteKind
from holdfast.processor.engine.runtime import READ_GROUP
from holdfast.processor.log_context import ids_of
from holdfast.schemas.activity_messages import ActivityHeartbeat, ActivityRequest, ActivityResult, lost
from holdfast.schemas.errors import InstanceLockLost, InvalidMessage, KeyInUse, StorageError
from holdfast.schemas.results import SubflowResult

if TYPE_CHECKING:
    from holdfast.processor.engine.engine import Engine

log = structlog.get_logger("holdfast.engine")

ALONE = 10.0
"""Seconds that a redelivered message has the host's bursts to itself, so that a long activity holds up nobody."""


class _Overtaken(Exception):
    """While this message waited for its turn an older one of the key came back, or its partition was given up."""


class Lanes:
    """The messages on their way, by correlation key."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._runtime = engine.runtime
        self._lanes: dict[str, deque[Arrival]] = {}

    @property
    def messages(self) -> int:
        """How many messages are on their way."""
        return sum(map(len, self._lanes.values()))

    def clear(self) -> None:
        """Drop every message; the broker still has those that came from it."""
        self._lanes.clear()

    def deliver(self, arrival: Arrival) -> None:
        """Put a message into the lane of its key, or into the hands of an instance that waits for it."""
        lane = self._lanes.get(arrival.envelope.key)
        if lane is not None:
            lane.append(arrival)
            return
        if self._is_plain(arrival) and self._is_valid(arrival) and self._engine.hand_over(arrival):
            return
        self._lanes[arrival.envelope.key] = lane = deque((arrival,))
        self._engine.spawn(self._drain(arrival.envelope.key, lane))

    def retry(self, arrivals: list[Arrival], seconds: float) -> None:
        """Handle messages of one key again after ``seconds``, before those that come after them."""
        if not arrivals:
            return
        for arrival in arrivals:
            arrival.not_before = self._runtime.environment.monotonic() + seconds
        key = arrivals[0].envelope.key
        lane = self._lanes.get(key)
        if lane is None:
            self._lanes[key] = lane = deque(arrivals)
            self._engine.spawn(self._drain(key, lane))
        else:
            lane.extendleft(reversed(arrivals))

    async def _drain(self, key: str, lane: deque[Arrival]) -> None:
        environment = self._runtime.environment
        while lane and not self._engine.stopping:
            arrival = lane[0]
            if self._comes_again(arrival):
                lane.popleft()
                continue
            pause = arrival.not_before - environment.monotonic()
            if pause > 0:
                await environment.sleep(pause)
                continue
            try:
                await self._handle(arrival)
            except _Overtaken:
                continue
            except StorageError as error:
                log.warning("store unreachable", error=str(error), **ids_of(arrival.envelope))
                await self._runtime.environment.sleep(STORAGE_PAUSE)
                continue
            except InstanceLockLost:
                self._runtime.doubt_lease()
                await self._runtime.environment.sleep(STORAGE_PAUSE)
                continue
            except Exception:
                # Counted like one that takes its host down, so that it ends as a dead letter at last.
                log.exception("message not handled", **ids_of(arrival.envelope))
                await self._runtime.environment.sleep(STORAGE_PAUSE)
                arrival.redelivered, arrival.is_counted = True, False
                continue
            lane.remove(arrival)
        if self._lanes.get(key) is lane:
            del self._lanes[key]

    def have(self, partition: int) -> bool:
        """Whether messages of a partition are on their way; what waits to be run alone may wait for long."""
        return any(not arrival.redelivered for arrival in self._of(partition))

    def give_back(self, partition: int) -> None:
        """Handle no more of what a partition brought: its channel is about to be closed."""
        for arrival in self._of(partition):
            arrival.is_given_back = True

    def _of(self, partition: int) -> list[Arrival]:
        return [a for lane in self._lanes.values() for a in lane if a.partition == partition and a.stored is None]

    def _comes_again(self, arrival: Arrival) -> bool:
        """Whether the message is about to be given back, with its partition."""
        return arrival.is_given_back or (arrival.stored is None and arrival.partition in self._engine.leaving)

    async def _handle(self, arrival: Arrival) -> None:
        """Bring one message to where it belongs."""
        try:
            if arrival.problem is not None:
                raise arrival.problem
            if not self._validate(arrival):
                await self._unknown(arrival)
                return
        except InvalidMessage as error:
            await self._dead_letter(arrival, error.reason, error.detail)
            return
        if isinstance(arrival.message, ActivityHeartbeat):
            await self._runtime.beat.put(arrival.message)
            arrival.settle()
        elif arrival.stored is None:
            if self._is_plain(arrival) and self._engine.hand_over(arrival):
                return
            await self._route(arrival)
        else:
            await self._start(arrival)

    def _validate(self, arrival: Arrival) -> bool:
        """Parse the body, once; False if this host does not know the type."""
        if arrival.message is None:
            kind = self._runtime.messages.get(arrival.envelope.type)
            if kind is None:
                return False
            if kind is SubflowResult:
                # How a subflow ends, only its own last commit says.
                raise InvalidMessage("reserved_type", f"messages of type {kind.message_type} are not for publishing")
            arrival.message = kind.parse(arrival.envelope)
        return True

    def _is_plain(self, arrival: Arrival) -> bool:
        """Whether nothing speaks against giving the message to whoever waits for it."""
        return not (
            arrival.redelivered or arrival.is_double or arrival.problem or arrival.stored or self._engine.stopping
        )

    def _is_valid(self, arrival: Arrival) -> bool:
        try:
            return self._validate(arrival)
        except InvalidMessage as error:
            arrival.problem = error
            return False

    async def _route(self, arrival: Arrival) -> None:
        route = await self._runtime.route.put(arrival.envelope)
        kind, instance_id = route.kind, route.instance_id
        if kind is RouteKind.DUPLICATE:
            self._runtime.counts.duplicates += 1
            arrival.settle()
        elif kind is RouteKind.REUSED:
            await self._dead_letter(
                arrival,
                "message_id_reused",
                f"message id {arrival.envelope.message_id!r} came before with another type, key or body",
            )
        elif kind is RouteKind.FINISHED:
            await self.keep(arrival, "rejected", reason="completed", instance_id=instance_id)
        elif kind in (RouteKind.NON_PERSISTED, RouteKind.BOOKMARK) and instance_id is not None:
            await self._bring(arrival, instance_id)
        elif kind is RouteKind.LIVING or arrival.envelope.type not in self._runtime.app.starts:
            if kind is not RouteKind.LIVING or not self._engine.hand_over(arrival):
                await self._buffer(arrival)
        else:
            await self._start(arrival)

    async def _bring(self, arrival: Arrival, instance_id: UUID) -> None:
        """Bring a message to an instance that is to be loaded."""

        async def find() -> Holding | None:
            holding = await self._engine.hold(instance_id, patience=self._patience(arrival))
            if holding is None or holding.is_suspended:
                await self._buffer(arrival)
                return None
            return holding

        await self._give(arrival, find)

    async def _start(self, arrival: Arrival) -> None:
        """Register a new instance and give it its start message."""

        async def find() -> Holding | None:
            try:
                return await self._engine.register(arrival, patience=self._patience(arrival))
            except KeyInUse:
                await self._buffer(arrival)
            except NoPlace:
                if arrival.stored is None:
                    await self._buffer(arrival)
            except AlreadyConsumed:
                # Somebody was faster; where the message belongs now, the routing table knows.
                if arrival.stored is None:
                    self.retry([arrival], 0)
            return None

        await self._give(arrival, find)

    def _patience(self, arrival: Arrival) -> float:
        """Return how long a message may wait here: until its ack is due, and not at all if the inbox has it."""
        if arrival.stored is not None:
            return 0.0
        waited = (self._runtime.now() - (arrival.delivered_at or arrival.received_at)).total_seconds()
        return max(0.0, self._runtime.settings.ack_deadline - waited)

    async def _give(self, arrival: Arrival, find: Callable[[], Awaitable[Holding | None]]) -> None:
        """Leave a message with the instance that ``find`` finds.

        A redelivered message may have taken its host down. It is run alone, and its attempt is counted
        before that, so that it is found out and its innocent neighbours are not.
        """
        if not arrival.redelivered:
            holding = await find()
            if holding is not None:
                holding.offer(arrival)
            return
        async with self._engine.alone:
            if self._lanes[arrival.envelope.key][0] is not arrival or self._comes_again(arrival):
                raise _Overtaken
            if not arrival.is_counted:
                attempts = (await self._runtime.provider.attempt([arrival.envelope.message_id]))[0]
                if attempts > self._runtime.settings.max_attempts:
                    detail = f"tried {attempts - 1} times without reaching a commit"
                    await self._dead_letter(arrival, "attempts_exhausted", detail)
                    return
                arrival.is_counted = True
            holding = await find()
            if holding is not None:
                holding.offer(arrival)
                await holding.rest(ALONE)

    # Messages that no instance takes now.

    async def _unknown(self, arrival: Arrival) -> None:
        kind = arrival.envelope.type
        if kind in await self._runtime.provider.known_types():
            await self._buffer(arrival)
        else:
            await self._dead_letter(arrival, "unknown_type", f"no living host knows message type {kind!r}")

    async def _buffer(self, arrival: Arrival) -> None:
        """Store a message until somebody waits for it; wakes who already does."""
        await self.keep(arrival, "buffered")

    async def _dead_letter(self, arrival: Arrival, reason: str, detail: str) -> None:
        envelope = arrival.envelope
        log.warning("dead letter", reason=reason, detail=detail, **ids_of(envelope))
        if envelope.type == ActivityRequest.message_type and envelope.key and reason != "replayed":
            # Its instance waits for an answer, and nobody else is going to give one, unless it is but history.
            answer = Intake(
                envelope=lost(envelope.key, f"the request became a dead letter: {reason}"), verdict="buffered"
            )
            self._wake(await self._runtime.take_in.put(answer))
        await self.keep(arrival, "dead_lettered", reason=reason, detail=detail)

    async def keep(self, arrival: Arrival, verdict: InboxVerdict, **about: Any) -> None:
        """Store a message with a verdict and settle it; wakes who waits for it. ``about`` is as in ``Intake``."""
        intake = self._intake(arrival, verdict, **about)
        await self._kept(arrival, intake, await self._runtime.take_in.put(intake))

    async def keep_in_order(self, arrivals: deque[Arrival]) -> None:
        """Store messages as buffered, in one go, and take them out of ``arrivals`` as they are settled.

        At most ``READ_GROUP`` at a time; raises ``StorageError`` with nothing of them stored.
        """
        group = [(arrival, self._intake(arrival, "buffered")) for arrival in islice(arrivals, READ_GROUP)]
        routes = await self._runtime.provider.take_in([intake for _, intake in group])
        for (arrival, intake), route in zip(group, routes, strict=True):
            await self._kept(arrival, intake, route)
            arrivals.popleft()

    def _intake(self, arrival: Arrival, verdict: InboxVerdict, **about: Any) -> Intake:
        kind = "message" if arrival.stored is None else arrival.stored.kind
        is_mail = verdict == "buffered" and kind == "message"
        room = self._runtime.settings.max_mailbox if is_mail else None
        return arrival.intake(verdict, kind=kind, room=room, **about)

    async def _kept(self, arrival: Arrival, intake: Intake, route: Route) -> None:
        """Settle a message that was stored with a verdict, and wake who waits for it."""
        verdict, reason = intake.verdict, intake.reason
        if route.kind is RouteKind.FULL:
            verdict, reason = "dead_lettered", "mailbox_full"
            log.warning("dead letter", reason=reason, message_id=arrival.envelope.message_id)
        if route.kind is RouteKind.REUSED and verdict != "dead_lettered":
            await self._dead_letter(arrival, "message_id_reused", "the message id came before with another body")
            return
        if route.kind is RouteKind.DUPLICATE:
            self._runtime.counts.duplicates += 1
        else:
            self._runtime.counts.verdicts[verdict, reason or ""] += 1
        if (
            verdict == "buffered"
            and route.kind is RouteKind.NONE
            and arrival.envelope.type == ActivityResult.message_type
        ):
            # The bookmark of a request is open before the request leaves, so nobody is going to wait for it.
            await self._runtime.take_in.put(Intake(envelope=arrival.envelope, verdict="rejected", reason="late"))
            self._runtime.counts.verdicts["rejected", "late"] += 1
        arrival.settle()
        self._wake(route)

    def _wake(self, route: Route) -> None:
        """Have an instance looked at that a stored message turned out to concern."""
        if route.kind in (RouteKind.BOOKMARK, RouteKind.NON_PERSISTED) and route.instance_id is not None:
            self._engine.spawn(self._engine.wake(route.instance_id))
