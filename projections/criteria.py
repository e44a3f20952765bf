"""Which instances are meant, and in which order an index has them.

Nearly every criterion has an index that gives its instances in an order, so that a page is read and no more, however
many fit and however long ago they were; a key, a promoted value and what few instances are have an index that gives
all of theirs, to be sorted. Where several are given, the one that most likely says most leads, and the others are
looked up as its instances come.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Literal, TypedDict, get_args

from holdfast.schemas.errors import InvalidQuery
from holdfast.schemas.words import BookmarkKind, ExecutionStatus, Outcome

Sort = Literal["created", "updated"]
"""By when instances were registered, or by their last update."""

Order = Literal["id", "region", "creation", "update", "bookmark", "promoted"]
"""What an index has instances in the order of."""


class Criteria(TypedDict, total=False):
    """Which instances are meant: those that fit all that is given, which is not None.

    ``is_completed`` asks whether an instance has ended, whatever its outcome. ``older_than`` and ``younger_than`` go by
    when it was registered, as do ``created_since``, which is included, and ``created_before``, which is not.
    ``updated_since`` and ``updated_before`` go by its last update, and are for what has ended: with
    ``is_completed=True`` or an ``outcome``. Moments have an offset from UTC.

    ``promoted`` are values that the instance shows for queries, by name; a list or object fits one that contains it.
    ``waits_for`` is the type of a message that it waits for, ``waits_for_key`` that message's key, ``waits_for_kind``
    what it waits for at all, and ``waits_at`` the name of the bookmark: all of one and the same bookmark.
    """

    workflow: str | None
    program_hash: str | None
    correlation_key: str | None
    execution_status: ExecutionStatus | None
    outcome: Outcome | None
    is_suspended: bool | None
    is_initialized: bool | None
    is_completed: bool | None
    older_than: timedelta | None
    younger_than: timedelta | None
    created_since: datetime | None
    created_before: datetime | None
    updated_since: datetime | None
    updated_before: datetime | None
    promoted: Mapping[str, Any] | None
    waits_for: str | None
    waits_for_kind: BookmarkKind | None
    waits_for_key: str | None
    waits_at: str | None


LASTING = frozenset({"workflow", "correlation_key", "created_since", "created_before"})
"""Criteria that an instance fits from its beginning to its end, or never."""

_WORDS = {"execution_status": ExecutionStatus, "outcome": Outcome, "waits_for_kind": BookmarkKind}
_MOMENTS = ("created_since", "created_before", "updated_since", "updated_before")
_AGES = ("older_than", "younger_than")


def completed(criteria: Criteria, app: str | None, sort: Sort) -> dict[str, Any]:
    """Return all criteria, None for what is not given, with what follows from them; or raise ``InvalidQuery``."""
    for name in criteria.keys() - Criteria.__annotations__.keys():
        raise InvalidQuery(f"there is no criterion {name!r}")
    all_: dict[str, Any] = {**dict.fromkeys(Criteria.__annotations__), **criteria, "app": app}
    for name, words in _WORDS.items():
        if all_[name] not in (None, *get_args(words)):
            raise InvalidQuery(f"{name} is one of {', '.join(get_args(words))}, not {all_[name]!r}")
    for name in _MOMENTS:
        if all_[name] is not None and all_[name].tzinfo is None:
            raise InvalidQuery(f"{name} is a moment with an offset from UTC, not {all_[name]}")
    for name in _AGES:
        if all_[name] is not None and all_[name] < timedelta():
            raise InvalidQuery(f"{name} is an age, which is not negative")
    if all_["waits_for_key"] is not None and all_["waits_for"] is None:
        raise InvalidQuery("waits_for_key is the key of a message: give its type too, as waits_for")
    if all_["waits_for_kind"] == "timer" and all_["waits_for"] is not None:
        raise InvalidQuery("a timer is no message: give waits_for_kind='timer' or waits_for")
    if all_["waits_for"] is None:
        all_["waits_for"] = _answer(all_["waits_for_kind"])
    if all_["is_completed"] is None:
        all_["is_completed"] = _ends(all_)
    if sort not in get_args(Sort):
        raise InvalidQuery(f"instances are sorted by {' or '.join(get_args(Sort))}, not by {sort!r}")
    by_update = [name for name in ("updated_since", "updated_before") if all_[name] is not None]
    if (by_update or sort == "updated") and not all_["is_completed"]:
        raise InvalidQuery(
            f"{by_update[0] if by_update else 'sort=updated'} is for instances that have ended, give is_completed=True "
            "or an outcome: what lives is updated with every step, and kept in no order of that"
        )
    return all_


def order(criteria: Mapping[str, Any], sort: Sort) -> Order:
    """Return the order in which to look for the instances that fit completed criteria."""

    def given(*names: str) -> bool:
        return any(criteria[name] is not None for name in names)

    if sort == "updated" or given("updated_since", "updated_before"):
        return "update"
    is_rare = criteria["is_suspended"] or criteria["is_initialized"] is False
    if given("correlation_key") or is_rare or criteria["execution_status"] == "executing":
        return "id"
    if given("waits_for", "waits_at") or criteria["waits_for_kind"] in ("timer", "child", "activity"):
        return "bookmark"
    if given("promoted"):
        return "promoted"
    if criteria["outcome"] not in (None, "completed") or criteria["is_completed"] is False:
        return "region"
    if given(*_AGES, "created_since", "created_before"):
        return "creation"
    return "region" if given("app", "workflow", "program_hash", "is_completed") else "id"


def _answer(kind: str | None) -> str | None:
    """Return the type of the messages by which what is waited for ends, if such messages do it."""
    # Types of messages are costly to build, and few queries are about these.
    match kind:
        case "child":
            from holdfast.schemas.results import SubflowResult  # noqa: PLC0415  For the reason above.

            return SubflowResult.message_type
        case "activity":
            from holdfast.schemas.activity_messages import ActivityResult  # noqa: PLC0415  As above.

            return ActivityResult.message_type
    return None


def _ends(criteria: Mapping[str, Any]) -> bool | None:
    """Tell whether what fits has ended, if the criteria say so."""
    if criteria["outcome"] is not None or criteria["execution_status"] == "closed":
        return True
    waits = any(criteria[name] is not None for name in ("waits_for", "waits_for_kind", "waits_at"))
    return False if waits or criteria["execution_status"] is not None else None
