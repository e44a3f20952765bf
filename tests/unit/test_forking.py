"""The first batch of a fork: what may be forked, what is changed, and that it folds by itself."""

import json
import math
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from holdfast.events.codec import decode, encode
from holdfast.events.types import InstanceForked, Persisted
from holdfast.projections.forking import forked
from holdfast.projections.instance import Bookmark, Call, FrameState, InstanceState, Subflow, fold
from holdfast.schemas.errors import ForkRefused

ORIGIN = UUID(int=7)
RECEIVE = {"$object": "a:Receive", "type": "Paid", "key": "A-1", "timeout": None}
STATE = InstanceState(
    version=9,
    workflow="order",
    program_hash="p",
    correlation_key="A-1",
    execution_status="idle",
    frames={
        "0": FrameState(
            program="p",
            step=4,
            line=20,
            visits=3,
            variables={
                "placed": {"$object": "shop:Placed", "order_id": "A-1", "lines": [{"item": "chair"}], "note": "of A-1"},
                "amount": 5,
                "$await": {"$object": "a:Running"},
            },
        ),
        "0.3": FrameState(program="q", step=1, line=9, visits=1, variables={"amount": 6, "$await": RECEIVE}),
    },
    bookmarks={
        "0.3.1": Bookmark(kind="message", frame="0.3", line=9, message_type="Paid", correlation_key="A-1"),
        "0.3.1:timeout": Bookmark(kind="timer", frame="0.3", line=9, due="2026-03-04T05:06:07+00:00"),
    },
    values={"tenant": "north"},
    promoted={"amount": 5},
    parent=None,
)


def changed(**fields: Any) -> InstanceState:
    return InstanceState(**{**vars(STATE), **fields})


def test_a_fork_folds_to_the_state_that_it_came_from() -> None:
    events = forked(ORIGIN, STATE, by="ann", why="what if")
    assert isinstance(events[0], InstanceForked)
    assert isinstance(events[-1], Persisted)
    wanted = changed(version=len(events), origin=str(ORIGIN), origin_version=9)
    assert fold(events) == wanted


@pytest.mark.parametrize("state", [changed(execution_status="executing", bookmarks={})])
def test_a_fork_of_a_burst_goes_on_with_it(state: InstanceState) -> None:
    assert fold(forked(ORIGIN, state, by="ann")).execution_status == "executing"


def test_a_fork_of_what_stood_still_stands_still() -> None:
    state = changed(
        is_suspended=True,
        suspension_reason="unhandled_exception",
        suspension_exception_name="ValueError",
        suspension_detail="no",
    )
    forked_state = fold(forked(ORIGIN, state, by="ann"))
    assert (forked_state.is_suspended, forked_state.suspension_detail) == (True, "no")


def test_a_fork_is_nobodys_subflow() -> None:
    events = forked(ORIGIN, changed(parent=str(UUID(int=1)), subflow="start", awaited_as=str(UUID(int=2))), by="ann")
    state = fold(events)
    assert (state.parent, state.subflow, state.awaited_as) == (None, None, None)


def test_variables_and_their_fields_get_other_values() -> None:
    given = {"amount": 7, "0.3/amount": {"$decimal": "8.5"}, "placed.lines.0.item": "table"}
    events = forked(ORIGIN, STATE, by="ann", variables=given)
    state = fold(events)
    assert state.frames["0"].variables["amount"] == 7
    assert state.frames["0.3"].variables["amount"] == {"$decimal": "8.5"}
    assert state.frames["0"].variables["placed"]["lines"] == [{"item": "table"}]
    assert state.frames["0"].variables["placed"]["order_id"] == "A-1"
    assert isinstance(events[0], InstanceForked)
    assert events[0].changed == ("0.placed", "0.amount", "0.3.amount")
    assert state.promoted == {"amount": 7}


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (7, {"amount": 7}),
        (True, {"amount": True}),
        (None, {"amount": None}),
        ("seven", {"amount": "seven"}),
        ({"$decimal": "8.50"}, {"amount": "8.50"}),
        ({"$uuid": str(UUID(int=10)).upper()}, {"amount": str(UUID(int=10))}),
        (2**63 - 1, {"amount": 2**63 - 1}),
        ({"$int": hex(2**64)}, {}),
        ({"$str": "\\x00"}, {}),
        ([7], {}),
        ({"$object": "shop:Amount", "value": 7}, {}),
    ],
)
def test_queries_see_a_new_value_if_it_is_plain_and_none_if_it_takes_code(value: Any, shown: dict[str, Any]) -> None:
    state = fold(forked(ORIGIN, STATE, by="ann", variables={"amount": value}))
    assert repr(state.promoted) == repr(shown)


def test_what_queries_see_of_other_variables_stays() -> None:
    placed = {"order_id": "A-1", "lines": [{"item": "chair"}], "note": "of A-1"}
    state = changed(promoted={"amount": 5, "placed": placed, "total": 3})
    assert fold(forked(ORIGIN, state, by="ann")).promoted == state.promoted
    kept = fold(forked(ORIGIN, state, by="ann", variables={"amount": 7})).promoted
    assert kept == {"amount": 7, "placed": placed, "total": 3}
    assert fold(forked(ORIGIN, state, by="ann", key="A-2")).promoted == {"amount": 5, "total": 3}
    # A participant may show something of its own under the name of a variable that is not promoted.
    participants = changed(promoted={"amount": "five"})
    assert fold(forked(ORIGIN, participants, by="ann", variables={"amount": 7})).promoted == {"amount": "five"}


def test_another_key_is_the_one_that_queries_see() -> None:
    old, new = str(UUID(int=3)), str(UUID(int=4))
    variables = {"text": old, "id": {"$uuid": old}}
    frames = {"0": FrameState(program="p", step=1, line=1, visits=1, variables=variables)}
    state = changed(correlation_key=old, frames=frames, bookmarks={}, promoted={"text": old, "id": old})
    assert fold(forked(ORIGIN, state, by="a", key=new)).promoted == {"text": new, "id": new}


def test_queries_see_nothing_of_what_shares_an_object_with_others_that_changed() -> None:
    frames = {"0": FrameState(**{**vars(ALIASED["0"]), "variables": {"a": {"x": {"n": 1}}, "b": {"$ref": "0.a/x"}}})}
    state = changed(frames=frames, bookmarks={}, promoted={"b": {"n": 1}})
    assert fold(forked(ORIGIN, state, by="ann", variables={"a.x.n": 2})).promoted == {}


def test_an_answer_goes_to_who_asked_the_origin() -> None:
    state = fold(forked(ORIGIN, changed(reply_to="asker", reply_key="A-1"), by="ann", key="A-2"))
    assert (state.reply_to, state.reply_key) == ("asker", "A-1")


def test_another_key_goes_into_waits_and_into_texts_that_are_just_the_old_one() -> None:
    state = fold(forked(ORIGIN, STATE, by="ann", key="A-2"))
    assert state.correlation_key == "A-2"
    assert state.bookmarks["0.3.1"].correlation_key == "A-2"
    assert state.frames["0.3"].variables["$await"] == {**RECEIVE, "key": "A-2"}
    placed = state.frames["0"].variables["placed"]
    assert (placed["order_id"], placed["note"], placed["$object"]) == ("A-2", "of A-1", "shop:Placed")


def test_a_key_that_is_a_uuid_stays_one() -> None:
    old, new = str(UUID(int=3)), str(UUID(int=4))
    frames = {"0": FrameState(program="p", step=1, line=1, visits=1, variables={"id": {"$uuid": old}})}
    state = changed(correlation_key=old, frames=frames, bookmarks={})
    assert fold(forked(ORIGIN, state, by="a", key=new)).frames["0"].variables["id"] == {"$uuid": new}
    with pytest.raises(ForkRefused, match="its key is a UUID, and 'B' is none"):
        forked(ORIGIN, state, by="a", key="B")


def call(status: Any) -> dict[str, Call]:
    return {"k": Call(activity="charge", frame="0", line=1, status=status, attempts=1)}


@pytest.mark.parametrize(
    ("state", "why"),
    [
        (changed(execution_status="closed"), "it had ended by then"),
        (changed(subflow="run", parent="P"), "it runs within instance P, which is the one to be forked"),
        (
            changed(subflows={"C": Subflow(workflow="invoice", frame="0", mode="start")}),
            "at that point it waits for the end of subflow invoice C",
        ),
        (
            changed(subflows={"C": Subflow(workflow="invoice", frame="0", mode="run")}),
            "at that point it runs subflow invoice C",
        ),
        (changed(calls=call("intended")), "charge, which must not run twice, is about to run"),
        (changed(calls=call("delayed")), "it waits to try charge again"),
        (changed(calls=call("requested")), "it waits for the result of charge from a queue"),
    ],
)
def test_what_belongs_to_the_origin_alone_cannot_be_forked(state: InstanceState, why: str) -> None:
    with pytest.raises(ForkRefused, match=why):
        forked(ORIGIN, state, by="ann")


ALIASED = {"0": FrameState(program="p", step=1, line=1, visits=1, variables={"a": {"x": [1]}, "b": {"$ref": "0.a/x"}})}


@pytest.mark.parametrize(
    ("variables", "why"),
    [
        ({"amont": 5}, "frame 0 has no variable 'amont' at that point: it has placed, amount"),
        ({"0.9/amount": 5}, "it has no frame 0.9 at that point: it has 0, 0.3"),
        ({"$await": 5}, "'\\$await' names no variable"),
        ({"amount ": 5}, "names no variable: write NAME, NAME.FIELD or FRAME/NAME"),
        ({"amount": {"$ref": "0.placed"}}, "the new value of amount has a \\$ref"),
        ({"placed.price": 5}, "placed.price: there is no 'price', there is order_id, lines, note"),
        ({"amount.euros": 5}, "amount.euros: there is no 'euros', there is no fields"),
        ({"placed.lines.3": 5}, "placed.lines.3: there is no '3'"),
    ],
)
def test_a_variable_that_is_not_there_is_refused(variables: dict[str, Any], why: str) -> None:
    with pytest.raises(ForkRefused, match=why):
        forked(ORIGIN, STATE, by="ann", variables=variables)


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (math.nan, r'nan is stored as {"\$float":"nan"}: write that'),
        ([math.inf], r'inf is stored as {"\$float":"inf"}: write that'),
        (2**70, r'1180591620717411303424 is stored as {"\$int":"0x400000000000000000"}'),
        ("\ud800", r'is stored as {"\$str":"\\\\ud800"}'),
        ({"note": "\0"}, r'is stored as {"\$str":'),
        ({"\0": 1}, r"'\\x00' is no key"),
        ({1: 2}, "1 is no key"),
        (Decimal("9.99"), r"""Decimal\('9.99'\) is stored as {"\$decimal":"9.99"}: write that"""),
        ({1, 2}, r'{1, 2} is stored as {"\$set":\[1,2\]}'),
        ((1, 2), r'\(1, 2\) is stored as {"\$tuple":\[1,2\]}'),
        (object(), "is no JSON"),
        (json.loads("[" * 250 + "]" * 250), "nested more than 200 levels deep"),
        ({"$decimal": "abc"}, r"it cannot be read: InvalidOperation"),
        ({"$decimal": 9.99}, r"\$decimal takes text, not 9.99"),
        ({"$uuid": "17"}, "badly formed"),
        ({"$date": "tomorrow"}, "Invalid isoformat string"),
        ([{"a": {"$datetime": "2026-02-30T00:00:00"}}], "day is out of range|day 30 must be in range"),
        ({"$amount": 5}, r"there is no tag \$amount"),
        ({"$object": "shop:Placed", "when": {"$time": "noon"}}, "Invalid isoformat string"),
        ({"$object": 5}, r"\$object takes text"),
        ({"$exception": "shop:Late"}, "cannot be read: KeyError: 'args'"),
    ],
)
def test_a_value_that_would_not_come_back_is_refused_and_says_how_to_write_it(value: Any, why: str) -> None:
    with pytest.raises(ForkRefused, match=f"the new value of amount cannot be taken: .*({why})"):
        forked(ORIGIN, STATE, by="ann", variables={"amount": value})


@pytest.mark.parametrize(
    "value",
    [
        None,
        -0.0,
        2**63 - 1,
        "$decimal",
        {"tz": {"$zone": "Europe/Berlin"}, "items": [1, [True]]},
        {"$datetime": "2026-02-03T00:00:00", "tz": {"$zone": "Europe/Berlin"}, "fold": 1},
        {"$dict": [[1, {"$tuple": [{"$int": "0x400000000000000000"}]}]]},
        {"$object": "shop:Placed", "lines": [], "$fields_set": ["lines"], "$extra": {"$dict": [["$a", 1]]}},
        {"$enum": "shop:Colour", "name": "RED"},
        {"$exception": "shop:Late", "args": [{"$decimal": "9.99"}], "cause": {"$exception": "ValueError", "args": []}},
        {"$set": [{"$class": "shop:Placed"}, {"$object": "shop:Frozen"}]},
    ],
)
def test_a_value_in_its_stored_form_is_taken_as_it_is(value: Any) -> None:
    events = forked(ORIGIN, STATE, by="ann", variables={"amount": value})
    stored = decode(*encode(events[-1]))
    assert repr(fold([*events[:-1], stored]).frames["0"].variables["amount"]) == repr(value)


def test_a_value_that_others_point_into_is_refused_unless_they_are_changed_too() -> None:
    state = changed(frames=ALIASED, bookmarks={})
    with pytest.raises(ForkRefused, match=r"variable 0\.b shares an object with 0\.a"):
        forked(ORIGIN, state, by="ann", variables={"a": 1})
    with pytest.raises(ForkRefused, match=r"is in an object that is kept as 0\.a/x"):
        forked(ORIGIN, state, by="ann", variables={"b.0": 1})
    assert fold(forked(ORIGIN, state, by="ann", variables={"a": 1, "b": 2})).frames["0"].variables == {"a": 1, "b": 2}
