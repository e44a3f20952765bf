"""What a workflow or routine may await: plain data that says what is wanted.

Calling ``receive``, ``delay`` and the others does nothing by itself. It gives a value; ``await`` hands
that value to whoever runs the workflow, and gives back the answer. Because it is data, an instance
that waits can be stored together with what it waits for.
"""

from __future__ import annotations

import builtins
from collections.abc import Generator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Generic, Literal, Never, Self, TypeVar, cast

from holdfast.schemas.errors import Cancelled
from holdfast.schemas.identifiers import check_name
from holdfast.schemas.message import Message

T = TypeVar("T")
M = TypeVar("M", bound=Message)


class Awaitable(Generic[T]):
    """Base of everything that a workflow may await; ``T`` is the type of the answer."""

    __slots__ = ()

    def __await__(self) -> Generator[Self, Any, T]:
        """Yield this value to the driver of a native coroutine and return the driver's answer."""
        return cast("T", (yield self))


@dataclass(frozen=True, slots=True)
class ActivityCall(Awaitable[T]):
    """One call of an activity, by the activity's name; answered with what it returns."""

    activity: str
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Receive(Awaitable[T]):
    """Waits for a message of a type under a correlation key; answered with the message.

    Raises ``TimeoutError`` in the workflow when ``timeout`` passes first.
    """

    type: str
    key: str
    timeout: timedelta | None = None


@dataclass(frozen=True, slots=True)
class Send(Awaitable[None]):
    """Puts a message into the outbox; it leaves with the next persistence point."""

    message: Message


@dataclass(frozen=True, slots=True)
class Delay(Awaitable[None]):
    """A durable timer: for a length of time, or until a moment (with a time zone)."""

    until: timedelta | datetime


@dataclass(frozen=True, slots=True)
class FirstOf(Awaitable["Outcome"]):
    """Waits for the first of several named waits and cancels the rest; answered with an ``Outcome``."""

    branches: dict[str, Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Checkpoint(Awaitable[None]):
    """An explicit persistence point."""


@dataclass(frozen=True, slots=True)
class Reply(Awaitable[None]):
    """Puts an answer into the outbox, for who sent the message that the instance took last."""

    message: Message


@dataclass(frozen=True, slots=True)
class Defer(Awaitable[None]):
    """Pending work: a record activity to be run in the transaction of the next persistence point."""

    call: ActivityCall[Any]


@dataclass(frozen=True, slots=True)
class Suspend(Awaitable[None]):
    """Suspends the instance, for a ``reason`` in the user's words."""

    reason: str


@dataclass(frozen=True, slots=True)
class SubflowCall(Awaitable[T]):
    """Another workflow of the app as a subflow; answered with its result, or with its id if it is not awaited."""

    workflow: str
    input: Message
    mode: Literal["run", "start", "spawn"]


@dataclass(frozen=True, slots=True)
class ContinueAsNew(Awaitable[Never]):
    """Ends the instance, which goes on as a new one from ``input``."""

    input: Message


class Scope(Generic[T]):
    """What ``async with`` takes in a workflow; ``T`` is the type of what stands behind ``as``.

    Entering awaits ``Enter``, leaving awaits ``Leave``, in a compiled workflow as in a native coroutine.
    """

    __slots__ = ()

    def entering(self) -> Enter[T]:
        """Return what begins this scope; compiled code calls it."""
        return Enter(self)

    def leaving(self, pending: object) -> Leave:
        """Return what ends this scope, given the exception that leaves it, or anything else; compiled code calls it."""
        return Leave(self, pending if isinstance(pending, BaseException) else None)

    async def __aenter__(self) -> T:
        return await Enter(self)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await Leave(self, error)


@dataclass(frozen=True, slots=True)
class Enter(Awaitable[T]):
    """Begins a scope; answered with what stands behind ``as``."""

    scope: Scope[T]


@dataclass(frozen=True, slots=True)
class Leave(Awaitable[None]):
    """Ends a scope, with the exception that leaves it, if one does."""

    scope: Scope[Any]
    error: BaseException | None = None


@dataclass(frozen=True, slots=True)
class TransactionScope(Scope[None]):
    """One transaction for the work inside; ``timeout`` is the host's ``transaction_timeout`` if it is None."""

    timeout: timedelta | None = None


@dataclass(frozen=True, slots=True)
class TransactedReceive(Scope[M]):
    """A message and the work inside, in one transaction."""

    type: str
    key: str
    timeout: timedelta | None = None


@dataclass(frozen=True, slots=True)
class NoPersist(Scope[None]):
    """No persistence inside."""


@dataclass(frozen=True, slots=True)
class CompensableScope(Scope[Any]):
    """Work that can be undone, confirmed or cancelled later."""


@dataclass(frozen=True, slots=True)
class RoutineCall(Awaitable[T]):
    """One call of a routine, by the routine's name; ``arguments`` are its parameters, bound and by name.

    Awaited, it runs as a further frame of the instance and answers with what the routine returns.
    """

    routine: str
    arguments: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Gather(Awaitable[list[Any]]):
    """Several activities, waits and routines side by side; answered with their results, in order."""

    branches: tuple[Awaitable[Any], ...]


@dataclass(frozen=True, slots=True)
class Running(Awaitable[Any]):
    """Stands where a ``RoutineCall`` stood once its frame has begun."""


@dataclass(frozen=True, slots=True)
class Compensating(Awaitable[Any]):
    """Stands where something awaited stood that has to wait until compensable scopes are cancelled or confirmed."""

    then: Awaitable[Any] | Ended


@dataclass(frozen=True, slots=True)
class Ended:
    """Stands where a branch of a ``gather``, or a workflow, stood once it has ended; ``value`` is what it returned."""

    value: Any = None


@dataclass(slots=True)
class Gathering(Awaitable[list[Any]]):
    """A ``gather`` under way: what each branch still waits for, or how it ended.

    ``error`` is what the ``gather`` is going to raise, from the first branch that raised something;
    ``is_cancelling`` says that the other branches were told.
    """

    branches: list[Awaitable[Any] | Ended]
    error: BaseException | None = None
    is_cancelling: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """The branch of a ``first_of`` that came first: its ``name`` and its ``value``."""

    name: str
    value: Any = None


def receive(type: type[M], key: object, timeout: timedelta | None = None) -> Awaitable[M]:
    """Wait for a message of ``type`` whose correlation key is ``key``.

    Args:
        type: a ``Message`` subclass.
        key: the correlation key; numbers and UUIDs are taken in their text form.
        timeout: how long to wait at most; ``None`` waits without end.

    Raises:
        TypeError: ``type`` is not a message type, or ``timeout`` not a ``timedelta``.
        InvalidMessage: the key is empty or too long.
    """
    return Receive(*wanted("receive", type, key, timeout))


def wanted(function: str, type: object, key: object, timeout: timedelta | None) -> tuple[str, str, timedelta | None]:
    """Return what a ``function`` is to wait for: type, key and how long at most; raises as ``receive`` does."""
    if not (isinstance(type, builtins.type) and issubclass(type, Message)):
        raise TypeError(f"{function}() takes a Message class, not {type!r}")
    if timeout is not None and not isinstance(timeout, timedelta):
        raise TypeError(f"the timeout of {function}() is a timedelta, not {timeout!r}")
    return type.message_type, check_name("correlation", str(key)), timeout


def send(message: Message) -> Awaitable[None]:
    """Publish ``message`` once the next persistence point has committed."""
    if not isinstance(message, Message):
        raise TypeError(f"send() takes a Message, not {message!r}")
    return Send(message)


def reply(message: Message) -> Awaitable[None]:
    """Answer who sent the message that the instance took last, once the next persistence point has committed.

    ``ReplyImpossible`` is raised at the ``await`` if that message named no queue for an answer.
    """
    if not isinstance(message, Message):
        raise TypeError(f"reply() takes a Message, not {message!r}")
    return Reply(message)


def defer(work: Awaitable[Any]) -> Awaitable[None]:
    """Leave a call of a record activity to be done in the transaction of the next persistence point.

    Raises:
        TypeError: ``work`` is no call of an activity.
    """
    if not isinstance(work, ActivityCall):
        raise TypeError(f"defer() takes a call of a record activity, such as defer(book(claim)), not {work!r}")
    return Defer(work)


def suspend(reason: str) -> Awaitable[None]:
    """Suspend the instance here; it goes on when somebody resumes it.

    Raises:
        TypeError: ``reason`` is not a string.
    """
    if not isinstance(reason, str):
        raise TypeError(f"suspend() takes the reason in words, not {reason!r}")
    return Suspend(reason)


def delay(until: timedelta | datetime) -> Awaitable[None]:
    """Wait for a length of time or until a moment; what lies in the past is due at once.

    Raises:
        TypeError: ``until`` is neither a ``timedelta`` nor a ``datetime``.
        ValueError: ``until`` is a ``datetime`` without a time zone.
    """
    if isinstance(until, datetime):
        if until.utcoffset() is None:
            raise ValueError("delay() needs a datetime with a time zone, such as datetime.now(UTC)")
    elif not isinstance(until, timedelta):
        raise TypeError(f"delay() takes a timedelta or a datetime, not {until!r}")
    return Delay(until)


def first_of(**branches: Awaitable[Any]) -> Awaitable[Outcome]:
    """Wait for the first of several ``receive`` and ``delay``, each under a name of its own.

    Raises:
        TypeError: there is no branch, or one that is neither a ``receive`` nor a ``delay``.
    """
    if not branches:
        raise TypeError("first_of() needs at least one branch, such as late=delay(timedelta(days=3))")
    for name, branch in branches.items():
        if not isinstance(branch, Receive | Delay):
            raise TypeError(f"a branch of first_of() is a receive() or a delay(), but {name!r} is {branch!r}")
    return FirstOf(branches)


def checkpoint() -> Awaitable[None]:
    """Persist the instance here, whatever its persistence mode."""
    return Checkpoint()


STORED = (
    ActivityCall,
    Receive,
    Send,
    Delay,
    FirstOf,
    Checkpoint,
    Outcome,
    RoutineCall,
    Gather,
    Running,
    Compensating,
    Gathering,
    Ended,
    Reply,
    Defer,
    Suspend,
    SubflowCall,
    ContinueAsNew,
    Enter,
    Leave,
    TransactionScope,
    TransactedReceive,
    NoPersist,
    CompensableScope,
    Cancelled,
)
"""The classes that Holdfast itself puts into the variables of a waiting instance."""
