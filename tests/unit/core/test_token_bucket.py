"""A bucket never gives out more than its rate, on a clock that the test moves."""

from collections.abc import Sequence

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from holdfast.processor.core.token_bucket import SAVED, TokenBucket

RATES = st.integers(1, 300)


def taken(rate: int, pauses: Sequence[float], count: int) -> list[float]:
    """Give when each of ``count`` tokens was had, by somebody who is late by a pause each time that he has waited."""
    now, late, found = 1000.0, list(pauses), list[float]()
    bucket = TokenBucket(rate, now)
    while len(found) < count:
        wait = bucket.take(now)
        if wait == 0:
            found.append(now)
        else:
            now += wait + (late.pop() if late else 0.0)
    return found


def most_within_a_second(moments: Sequence[float]) -> int:
    return max(sum(first <= each < first + 1 for each in moments[place:]) for place, first in enumerate(moments))


@given(rate=RATES, pauses=st.lists(st.floats(0, 3), max_size=40))
@example(rate=100, pauses=[0.04, 0.0] * 20)
def test_no_second_has_more_than_the_rate(rate: int, pauses: list[float]) -> None:
    assert most_within_a_second(taken(rate, pauses, 2 * rate + 3)) <= rate


@given(rate=RATES)
def test_who_is_never_late_gets_the_whole_rate(rate: int) -> None:
    moments = taken(rate, (), 3 * rate + 1)
    assert moments[-1] - moments[0] == pytest.approx(3, rel=0.01)


@given(rate=st.integers(40, 300), late=st.floats(0.0001, SAVED / 2))
def test_timers_that_ring_late_cost_no_more_than_one_of_them_a_second(rate: int, late: float) -> None:
    moments = taken(rate, [late] * 5000, 5 * rate + 1)
    assert moments[-1] - moments[0] <= 5 + 6 * late + 2 * SAVED


@given(rate=RATES, pause=st.floats(1, 10_000))
def test_a_pause_is_not_made_up_for(rate: int, pause: float) -> None:
    now = 5.0
    bucket = TokenBucket(rate, now)
    while not bucket.take(now):
        pass
    now += pause
    at_once = 0
    while not bucket.take(now):
        at_once += 1
    assert 1 <= at_once <= max(1, rate * SAVED)


def test_a_bucket_without_a_rate_makes_no_sense() -> None:
    with pytest.raises(ValueError, match="at least one token a second, not 0"):
        TokenBucket(0, 0.0)
