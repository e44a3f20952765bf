"""Old shapes of events, as if `InstanceResumed` had had other fields twice before."""

from typing import Any

import pytest

from holdfast.events.codec import decode, encode
from holdfast.events.types import InstanceResumed
from holdfast.events.upcasting import UPCASTERS
from holdfast.schemas.errors import UnreadableEvent


def name_who(data: dict[str, Any]) -> dict[str, Any]:
    """Version 1 called `by` by the name of `who`."""
    data["by"] = data.pop("who")
    return data


def join_why(data: dict[str, Any]) -> dict[str, Any]:
    """Version 2 had a list of reasons."""
    return {"by": data["by"], "why": ", ".join(data["reasons"])}


@pytest.fixture
def _two_older_shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(UPCASTERS, "InstanceResumed", (name_who, join_why))


pytestmark = pytest.mark.usefixtures("_two_older_shapes")


@pytest.mark.parametrize(
    "stored",
    [
        '{"who":"ops","reasons":["late","paid"]}',
        '{"$v":1,"who":"ops","reasons":["late","paid"]}',
        '{"$v":2,"by":"ops","reasons":["late","paid"]}',
        '{"$v":3,"by":"ops","why":"late, paid"}',
    ],
)
def test_every_shape_is_read_as_the_present_one(stored: str) -> None:
    assert decode("InstanceResumed", stored) == InstanceResumed(by="ops", why="late, paid")


def test_what_is_written_names_its_shape() -> None:
    assert encode(InstanceResumed(by="ops")) == ("InstanceResumed", b'{"$v":3,"by":"ops","why":null}')


def test_a_shape_from_the_future_is_refused() -> None:
    with pytest.raises(UnreadableEvent, match="shape version 4, this version of Holdfast knows up to 3"):
        decode("InstanceResumed", '{"$v":4,"by":"ops"}')


def test_an_old_shape_without_what_its_upcaster_needs_is_refused() -> None:
    with pytest.raises(UnreadableEvent, match="InstanceResumed is stored in a shape that cannot be read"):
        decode("InstanceResumed", '{"$v":2,"by":"ops"}')
