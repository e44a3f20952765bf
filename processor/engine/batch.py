"""What one persistence point of one instance commits: the batch, and the values that it is made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal
from uuid import UUID

from holdfast.events.types import Event
from holdfast.processor.language.options import OnCompletion
from holdfast.projections.instance import InstanceState
from holdfast.schemas.encodings import StateEncoding
from holdfast.schemas.message import Envelope
from holdfast.schemas.words import SubflowMode


@dataclass(frozen=True, slots=True, kw_only=True)
class Keeping:
    """How the store keeps an instance: its state in which encoding, and whether row and state outlive its end."""

    state_encoding: StateEncoding = "none"
    on_completion: OnCompletion = "keep"


KEPT = Keeping()
"""As the store keeps an instance of which nobody says otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Consumed:
    """A message that a batch consumes; ``stored`` says that it waits in the inbox already."""

    envelope: Envelope
    stored: bool
    kind: Literal["message", "control"] = "message"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outgoing:
    """A message to publish after the commit."""

    message_id: str
    exchange: str
    routing_key: str
    type: str
    key: str
    body: bytes
    traceparent: str | None = None

    @property
    def reply_to(self) -> None:
        """Nobody: what an instance waits for comes to its app."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Child:
    """An instance that a batch brings into being: non-persisted, held by nobody, for any host to take up.

    Its row names the batch's instance as its parent; ``start`` waits in the inbox, buffered and addressed to it.
    ``awaited_as`` is the id under which another instance waits for its end. What is addressed to an instance is
    handed on to the child that goes on in its place (``continued``).
    """

    instance_id: UUID
    workflow: str
    program_hash: str
    correlation_key: str
    partition: int
    mode: SubflowMode
    start: Envelope
    awaited_as: UUID | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class InnerBatch:
    """What a batch commits for a subflow that runs within its instance's transactions (``run``).

    The subflow has a stream and a row of its own, which the lock of its parent guards. It has neither bookmarks
    nor a mailbox: what it waits for, its parent waits for. ``expected_version`` is 0 for one that is new.
    """

    instance_id: UUID
    workflow: str
    program_hash: str
    correlation_key: str
    start_message_id: str
    expected_version: int
    events: Sequence[Event]
    metadata: dict[str, Any]
    state: InstanceState
    keeping: Keeping = KEPT


@dataclass(frozen=True, slots=True, kw_only=True)
class Deposit:
    """A message or control command that a batch puts into the inbox, buffered.

    ``instance_id`` addresses a control command, or rather whoever is awaited as that instance by now; a message finds
    its instance by type and key.
    """

    envelope: Envelope
    kind: Literal["message", "control"] = "message"
    instance_id: UUID | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """All that one persistence point of one instance commits.

    ``expected_version`` is the stream's version before ``events``; ``state`` the fold after them.
    ``release`` gives the lock back with the commit (closed or unloaded instances). The row's ``promoted`` is
    ``state.promoted``. Closing rejects what is left in the mailbox, unless a child goes on in the instance's place
    (``continued``). A bookmark that the batch opened and closed again appears in neither list of the store's bookmarks:
    the adapter makes the table equal ``state.bookmarks``; ``opened`` and ``closed`` are the difference to before, and
    ``moved`` the timers that stay open and are due at another time.
    """

    instance_id: UUID
    host_id: UUID
    lock_token: int
    expected_version: int
    events: Sequence[Event]
    metadata: dict[str, Any]
    state: InstanceState
    keeping: Keeping = KEPT
    opened: tuple[str, ...] = ()
    closed: tuple[str, ...] = ()
    moved: tuple[str, ...] = ()
    consumed: Sequence[Consumed] = ()
    outgoing: Sequence[Outgoing] = ()
    children: Sequence[Child] = ()
    inner: Sequence[InnerBatch] = ()
    deposits: Sequence[Deposit] = ()
    release: bool = False

    @property
    def streams(self) -> list[Batch | InnerBatch]:
        """All that appends to a stream, the instance itself last."""
        return [*self.inner, self]

    @property
    def state_encoding(self) -> StateEncoding:
        """How the instance's state is to be stored."""
        return self.keeping.state_encoding

    @property
    def discarded(self) -> list[UUID]:
        """The instances that it closes and of which no more than the log is to stay."""
        return [
            stream.instance_id
            for stream in self.streams
            if stream.keeping.on_completion == "delete" and stream.state.execution_status == "closed"
        ]
