"""The law of differences: whoever makes the changes to the first state has the second."""

import copy
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from holdfast.events.types import Event
from holdfast.projections.difference import Change, difference, tree
from holdfast.projections.instance import FrameState, InstanceState, fold
from tests.support.events import events

streams = st.lists(events(), max_size=12)
scalars = st.none() | st.booleans() | st.integers(-3, 3) | st.floats(allow_nan=False) | st.sampled_from(["", "a", "$a"])


def sequences(items: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    lists = st.lists(items, max_size=5)
    pairs = st.lists(st.tuples(st.integers(0, 4), items).map(list), max_size=4, unique_by=lambda pair: pair[0])
    return st.one_of(
        lists,
        st.dictionaries(st.sampled_from("abcd"), items, max_size=4),
        st.sampled_from(["$tuple", "$set", "$frozenset"]).flatmap(lambda tag: lists.map(lambda it: {tag: it})),
        pairs.map(lambda it: {"$dict": it}),
        st.fixed_dictionaries({"$object": st.sampled_from(["m:A", "m:B"]), "x": items}, optional={"y": items}),
        scalars.map(lambda it: {"$decimal": it}),
    )


variables = st.dictionaries(st.sampled_from(["a", "b", "$t1"]), st.recursive(scalars, sequences, max_leaves=12))
frames = st.dictionaries(
    st.sampled_from(["0", "0.3"]),
    st.builds(
        FrameState,
        program=st.just("p"),
        step=st.integers(1, 3),
        line=st.integers(1, 3),
        visits=st.just(1),
        variables=variables,
    ),
)
states = st.builds(InstanceState, frames=frames, values=variables, promoted=variables)


def made(state: dict[str, Any], changes: tuple[Change, ...]) -> dict[str, Any]:
    state = copy.deepcopy(state)
    for change in changes:
        node: Any = state
        for segment in change.path[:-1]:
            node = node[segment]
        key: Any = change.path[-1]
        if change.kind == "removed":
            assert text(node.pop(key)) == text(change.before)
        elif change.kind == "changed":
            assert text(node[key]) == text(change.before)
            node[key] = change.after
        elif isinstance(node, list):
            node.insert(key, change.after)
        else:
            assert key not in node
            node[key] = change.after
        state = copy.deepcopy(state)
    return state


def text(node: Any) -> str:
    """Write a tree so that two which are equal to Python, but not the same, can be told apart."""
    if isinstance(node, dict):
        return f"{{{', '.join(f'{key!r}: {text(node[key])}' for key in sorted(node))}}}"
    return f"[{', '.join(map(text, node))}]" if isinstance(node, list | tuple) else repr(node)


@given(states, states)
def test_the_changes_made_to_one_state_give_the_other(a: InstanceState, b: InstanceState) -> None:
    assert text(made(tree(a), difference(a, b))) == text(tree(b))


@given(streams, streams)
def test_the_same_holds_of_states_that_events_led_to(one: list[Event], other: list[Event]) -> None:
    a, b = fold(one), fold(other)
    assert text(made(tree(a), difference(a, b))) == text(tree(b))
    later = fold(other, a)
    assert text(made(tree(a), difference(a, later))) == text(tree(later))


@given(states)
def test_a_state_does_not_differ_from_itself(state: InstanceState) -> None:
    assert difference(state, copy.deepcopy(state)) == ()


@given(states, states)
def test_a_difference_is_empty_only_between_states_that_are_the_same(a: InstanceState, b: InstanceState) -> None:
    assert (difference(a, b) == ()) == (text(tree(a)) == text(tree(b)))
