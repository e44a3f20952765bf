"""What people are told of an event."""

import pytest

from holdfast.events.types import Event
from holdfast.processor.cli.describe import what
from tests.support.events import CHILD, EVERY_TYPE, PACK, SECOND_RELEASE


@pytest.mark.parametrize("event", EVERY_TYPE)
def test_every_event_is_described_in_full_lines(event: Event) -> None:
    lines = what(event)
    assert lines
    assert all(line.strip() and "\n" not in line for line in lines)


def test_a_wait_names_what_ends_it() -> None:
    opened = [line for event in SECOND_RELEASE if type(event).__name__ == "BookmarkOpened" for line in what(event)]
    assert opened == [
        f"0.4.1: waits for the result of activity request {PACK}",
        f"0.5.1: waits for the end of subflow {CHILD}",
    ]


def test_a_decision_names_who_took_it_and_why() -> None:
    decided = [what(event) for event in SECOND_RELEASE if type(event).__name__ == "ActivityResolved"]
    assert decided == [
        ["charge: done, result ('C-1',)", "by ops: the bank has it"],
        ["charge: retry", "by ops"],
    ]
