"""Which timers may be fired, rescheduled and cancelled, as the names of the open bookmarks tell."""

import pytest

from holdfast.processor.core.timers import moment, objection
from holdfast.schemas.words import BookmarkKind

LONE: dict[str, BookmarkKind] = {"0.2": "timer"}
BRANCHES: dict[str, BookmarkKind] = {"0.2/paid": "message", "0.2/late": "timer"}
DELAYS: dict[str, BookmarkKind] = {"0.2/a": "timer", "0.2/b": "timer"}
RECEIVE: dict[str, BookmarkKind] = {"0.2": "message", "0.2:timeout": "timer"}
RETRY: dict[str, BookmarkKind] = {"0.2:retry-3": "timer"}
QUEUED: dict[str, BookmarkKind] = {"0.2": "activity", "0.2:timeout": "timer"}
SIDE_BY_SIDE: dict[str, BookmarkKind] = {"0.4-1.1": "timer", "0.4-2.1": "message"}

FIRE, MOVE, CANCEL = "fire_timer", "reschedule_timer", "cancel_timer"


@pytest.mark.parametrize(
    ("bookmarks", "timer", "allowed"),
    [
        (LONE, "0.2", {FIRE, MOVE}),
        (BRANCHES, "0.2/late", {FIRE, MOVE, CANCEL}),
        (DELAYS, "0.2/a", {FIRE, MOVE, CANCEL}),
        ({"0.2/b": "timer"}, "0.2/b", {FIRE, MOVE}),
        (RECEIVE, "0.2:timeout", {FIRE, MOVE, CANCEL}),
        (RETRY, "0.2:retry-3", {FIRE, MOVE}),
        (QUEUED, "0.2:timeout", {FIRE}),
        (SIDE_BY_SIDE, "0.4-1.1", {FIRE, MOVE}),
        (BRANCHES, "0.2/paid", set()),
        (BRANCHES, "0.3", set()),
    ],
)
def test_what_is_allowed(bookmarks: dict[str, BookmarkKind], timer: str, allowed: set[str]) -> None:
    assert {command for command in (FIRE, MOVE, CANCEL) if objection(timer, command, bookmarks) is None} == allowed


def test_an_objection_says_what_to_do_instead() -> None:
    assert objection("0.2", CANCEL, LONE) == (
        "waits for nothing but 0.2 there: fire or reschedule it, or cancel the instance"
    )
    assert objection("0.2:timeout", MOVE, QUEUED) == (
        "has told an activity worker when 0.2:timeout is due: fire it, and the attempt is given up"
    )
    assert objection("0.9", FIRE, LONE) == "waits at no timer '0.9'"


def test_a_moment_has_an_offset_from_utc() -> None:
    assert moment("2026-02-01T12:00:00+01:00") is not None
    assert [moment(text) for text in (None, "", "soon", "2026-02-01T12:00:00")] == [None] * 4
