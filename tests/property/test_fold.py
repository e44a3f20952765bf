"""The law of the log: wherever a stream is cut, the state before the cut and the rest give the same state."""

from functools import reduce

from hypothesis import given
from hypothesis import strategies as st

from holdfast.events.codec import decode, encode
from holdfast.events.types import Event
from holdfast.projections.instance import evolve, fold, initial
from holdfast.projections.snapshot import dumps, loads
from tests.support.events import events

streams = st.lists(events(), max_size=12)


@given(streams)
def test_every_cut_folds_to_the_same_state(stream: list[Event]) -> None:
    whole = fold(stream)
    for cut in range(len(stream) + 1):
        assert fold(stream[cut:], fold(stream[:cut])) == whole


@given(streams)
def test_every_cut_through_a_snapshot_folds_to_the_same_bytes(stream: list[Event]) -> None:
    whole = dumps(fold(stream))
    for cut in range(len(stream) + 1):
        before = loads(dumps(fold(stream[:cut])))
        assert dumps(fold(stream[cut:], before)) == whole


@given(streams)
def test_stored_events_fold_to_the_same_bytes(stream: list[Event]) -> None:
    assert dumps(fold(decode(*encode(event)) for event in stream)) == dumps(fold(stream))


@given(streams)
def test_folding_is_evolving_event_by_event(stream: list[Event]) -> None:
    assert reduce(evolve, stream, initial) == fold(stream)


@given(streams, streams)
def test_folding_on_changes_no_state_that_was_given_out(stream: list[Event], more: list[Event]) -> None:
    state = fold(stream)
    before = dumps(state)
    fold(more, state)
    assert dumps(state) == before


@given(streams)
def test_a_snapshot_gives_the_state_back(stream: list[Event]) -> None:
    state = fold(stream)
    assert repr(loads(dumps(state))) == repr(state)
    assert state.version == len(stream)
