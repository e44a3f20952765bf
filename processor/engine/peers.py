"""Hosts as they tell the store of themselves, and as they see each other there."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from uuid import UUID


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """One worker process: it lives by a lease of ``lease_seconds``.

    One that brings no ``programs`` along is a client that holds an instance; it consumes nothing.
    """

    host_id: UUID
    app: str
    machine: str
    process_id: int
    lease_seconds: float
    programs: tuple[str, ...] = ()
    message_types: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """A living host as the others see it.

    Its lease lives for ``lease_left`` more seconds unless it is renewed. ``shared_at`` is when it last said which
    partitions it consumes; None before the first time.
    """

    host_id: UUID
    lease_left: float
    partitions: frozenset[int] = frozenset()
    shared_at: datetime | None = None


Hint = Literal["work", "hosts"]
"""What there may be to look at: something that can run; a host that came, went, or took a partition, and its work."""
