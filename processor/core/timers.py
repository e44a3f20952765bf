"""What may be done to an open timer from outside, as the names of an instance's bookmarks tell."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime

from holdfast.schemas.words import BookmarkKind

_WAIT = re.compile(r"[/:]")


def objection(timer: str, command: str, bookmarks: Mapping[str, BookmarkKind]) -> str | None:
    """Return what speaks against a command about one of the open bookmarks; None if nothing does.

    A wait must keep something that can end it, an activity the next attempt that it was promised, and an activity
    worker the deadline that it was told.
    """
    if bookmarks.get(timer) != "timer":
        return f"waits at no timer {timer!r}"
    wait = _wait_of(timer)
    if ":retry-" in timer:
        if command == "cancel_timer":
            return f"has an activity that is tried again at {timer}: fire or reschedule that, or cancel the instance"
    elif timer == f"{wait}:timeout" and bookmarks.get(wait) == "activity" and command != "fire_timer":
        return f"has told an activity worker when {timer} is due: fire it, and the attempt is given up"
    if command == "cancel_timer" and not any(name != timer and _wait_of(name) == wait for name in bookmarks):
        return f"waits for nothing but {timer} there: fire or reschedule it, or cancel the instance"
    return None


def moment(text: str | None) -> datetime | None:
    """Return the moment that a command gives; None if it is none, or says not how far it is from UTC."""
    try:
        found = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    return None if found.tzinfo is None else found


def is_same_wait(one: str, other: str) -> bool:
    """Whether two bookmarks end together: one of them is enough for the frame or branch to go on."""
    return _wait_of(one) == _wait_of(other)


def _wait_of(bookmark: str) -> str:
    return _WAIT.split(bookmark, maxsplit=1)[0]
