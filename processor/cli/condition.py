"""How an instance is and what it waits for, in a few words for people."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from holdfast.processor.cli.output import local

if TYPE_CHECKING:
    from holdfast.events.types import BookmarkOpened
    from holdfast.projections.instance import Bookmark
    from holdfast.projections.queries import Instance, NonPersisted, OpenBookmark, Tally


def condition(instance: Instance | Tally) -> str:
    """Return how an instance is, in one word or two."""
    if not instance.is_initialized:
        return "non-persisted, suspended" if instance.is_suspended else "non-persisted"
    if instance.is_suspended:
        return "suspended"
    return instance.outcome or instance.execution_status


def reason(instance: Instance | NonPersisted) -> str | None:
    """Return why an instance is suspended, briefly: the exception without its module, or the reason."""
    name = instance.suspension_exception_name
    return instance.suspension_reason if name is None else name.rpartition(".")[2]


def wait(bookmark: OpenBookmark | Bookmark | BookmarkOpened) -> str:
    """Return what an instance waits for."""
    match bookmark.kind:
        case "timer":
            return f"the timer at {local(point(bookmark.due))}"
        case "child":
            return f"the end of subflow {bookmark.correlation_key}"
        case "activity":
            return f"the result of activity request {bookmark.correlation_key}"
        case "message":
            return f"{bookmark.message_type} with key {bookmark.correlation_key}"


def point(moment: datetime | str | None) -> datetime | None:
    """Return a moment that may come as text, in ISO 8601."""
    return datetime.fromisoformat(moment) if isinstance(moment, str) else moment
