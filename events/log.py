"""The event log: the ``EventLog`` port and the values that pass it.

Two orders. A *stream* holds the events of one instance by version, 1, 2, 3 and so on. The *whole log*
is read in the order of cursors: by epoch, then by the transaction that wrote an event, then by
position. Transactions commit in another order than they begin, so a reader who takes what he sees
would skip those that commit late; ``read_all`` gives only events below the *safe horizon*, the oldest
transaction that still runs, and therefore skips none. What lies above it, ``horizon_lag`` tells.

For both orders to agree within a stream, its transaction ids may never fall: an append in a transaction
older than the one that appended last is refused with ``StaleTransaction``, to be run again in a new one.

The caller owns the transaction. Every method takes it first, as what an adapter calls a connection; what
was appended counts once it commits.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import Any, Protocol, TypeVar
from uuid import UUID

from holdfast.events.recorded import Cursor, RecordedEvent
from holdfast.events.types import Event
from holdfast.schemas.errors import StaleTransaction, WrongExpectedVersion

Connection_contra = TypeVar("Connection_contra", contravariant=True)


class Expected(Enum):
    """What a writer may believe of a stream instead of its version."""

    NO_STREAM = "no-stream"
    STREAM_EXISTS = "stream-exists"
    ANY = "any"


ExpectedVersion = int | Expected
"""What the writer believes the stream's version is: a number from 0, or an ``Expected``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Append:
    """At least one event for one stream; ``metadata`` is kept with each of them as JSON."""

    instance_id: UUID
    expected: ExpectedVersion
    events: Sequence[Event]
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.events:
            raise ValueError("an append needs at least one event")
        if isinstance(self.expected, int) and self.expected < 0:
            raise ValueError(f"a stream has no version {self.expected}")


@dataclass(frozen=True, slots=True)
class HorizonLag:
    """What is committed but not yet below the safe horizon: events, and the age of the oldest in seconds."""

    events: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A stretch of the whole log, and those events of it that were asked for.

    ``seen`` counts all its events and ``cursor`` is where it ends, with ``recorded_at``, when its last event was
    recorded; both are None if it is empty and began at the beginning.
    """

    events: Sequence[RecordedEvent]
    seen: int
    cursor: Cursor | None
    recorded_at: datetime | None


class EventLog(Protocol[Connection_contra]):
    """The log, whatever keeps it."""

    async def append(
        self,
        connection: Connection_contra,
        instance_id: UUID,
        expected: ExpectedVersion,
        events: Sequence[Event],
        metadata: Mapping[str, Any] | None = None,
    ) -> Cursor:
        """Append at least one event to a stream and return the cursor of the last.

        Raises ``WrongExpectedVersion``, and then nothing was appended and the transaction goes on;
        ``StaleTransaction`` if the same has to be run again in a new transaction.
        """
        ...

    async def append_many(
        self, connection: Connection_contra, appends: Sequence[Append]
    ) -> Sequence[Cursor | WrongExpectedVersion | StaleTransaction]:
        """Append to several streams at once, each answered for itself, in order.

        A stream may occur once. The caller holds what keeps other writers from these streams (the rows of
        the instances); a race that happens all the same fails the transaction with ``StorageError``.
        """
        ...

    def read_stream(
        self, connection: Connection_contra, instance_id: UUID, from_version: int = 1, to_version: int | None = None
    ) -> AsyncIterator[RecordedEvent]:
        """Yield the events of a stream in order, both ends included."""
        ...

    async def read_all(
        self, connection: Connection_contra, after: Cursor | None = None, limit: int = 1000
    ) -> tuple[Sequence[RecordedEvent], Cursor | None]:
        """Return at most ``limit`` events of the whole log after a cursor, and the cursor to go on from."""
        ...

    def read_log(
        self, connection: Connection_contra, after: Cursor | None = None, limit: int = 1000
    ) -> AsyncGenerator[Sequence[RecordedEvent], None]:
        """Yield what ``read_all`` returns, page by page up to the end; the connection does nothing else meanwhile.

        Who stops before the end closes the iterator (``contextlib.aclosing``).
        """
        ...

    async def read_page(
        self,
        connection: Connection_contra,
        after: Cursor | None = None,
        limit: int = 1000,
        *,
        app: str,
        types: Collection[str] | None = None,
    ) -> Page:
        """Look at no more than ``limit`` events of the whole log after a cursor, as ``read_all`` does.

        Only events of the app and of these types are read, so that others need not be known here.
        """
        ...

    async def horizon_lag(self, connection: Connection_contra) -> HorizonLag:
        """Return how far the end of the log lies above the safe horizon."""
        ...
