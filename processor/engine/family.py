"""What instances and their subflows put into each other's mailboxes: commands downwards, the end upwards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, cast
from uuid import UUID

import orjson

from holdfast.events.types import BookmarkClosed, Event, InstanceContinued, SubflowEnded
from holdfast.processor.engine.provider import Deposit
from holdfast.projections.instance import InstanceState
from holdfast.schemas.control import Command
from holdfast.schemas.message import Envelope
from holdfast.schemas.results import SubflowResult
from holdfast.schemas.words import Outcome

Name = Literal["suspend", "resume", "cancel", "terminate"]


def awaited(state: InstanceState, events: Sequence[Event] = ()) -> list[str]:
    """Return the started subflows that an instance still waits for, ``events`` after ``state``."""
    if not state.subflows:
        return []
    closed = {e.bookmark for e in events if isinstance(e, BookmarkClosed)}
    closed.update(name for e in events if isinstance(e, SubflowEnded) for name in e.closes)
    return [
        mark.correlation_key
        for name, mark in state.bookmarks.items()
        if mark.kind == "child" and mark.correlation_key is not None and name not in closed
    ]


def commanded(instance_id: UUID, version: int, child: str, name: Name) -> Deposit:
    """Return the command that an instance, at ``version``, gives a subflow that it waits for."""
    command = Command(command=name, by=str(instance_id), why="so does its parent, or waits for it no longer")
    return Deposit(envelope=command.envelope(f"{child}:{name}:{version}"), kind="control", instance_id=UUID(child))


def at_close(
    instance_id: UUID, before: InstanceState, state: InstanceState, events: Sequence[Event], traceparent: str | None
) -> list[Deposit]:
    """Return what a closing instance leaves: its end for who waits for that, the news for those it waited for."""
    name: Name = "terminate" if state.outcome == "terminated" else "cancel"
    deposits = [commanded(instance_id, before.version, child, name) for child in awaited(before, events)]
    if state.awaited_as is not None and not any(isinstance(event, InstanceContinued) for event in events):
        deposits.append(Deposit(envelope=replace(_result(state.awaited_as, state), traceparent=traceparent)))
    return deposits


def _result(awaited_as: str, state: InstanceState) -> Envelope:
    result = SubflowResult(
        instance_id=awaited_as,
        workflow=state.workflow,
        outcome=cast("Outcome", state.outcome),
        result=orjson.dumps(state.result).decode(),
        error=orjson.dumps(state.error).decode(),
    )
    return result.posted()
