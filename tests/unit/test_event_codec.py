"""Events and their stored form."""

import json
from pathlib import Path
from typing import Any, get_args

import orjson
import pytest
from hypothesis import given

from holdfast.events.codec import decode, encode
from holdfast.events.types import Event, InstanceCompleted, InstanceResumed, Where
from holdfast.schemas.errors import UnreadableEvent
from tests.support.events import EVERY_TYPE, FIRST_RELEASE, SECOND_RELEASE, THIRD_RELEASE, events


def golden(name: str) -> list[dict[str, Any]]:
    path = Path(__file__).parents[1].joinpath("golden/events", name)
    stored: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    return stored


FIRST = list(zip(FIRST_RELEASE, golden("v1.json"), strict=True))
SECOND = list(zip((*FIRST_RELEASE, *SECOND_RELEASE), golden("v2.json"), strict=True))
THIRD = list(zip((*FIRST_RELEASE, *SECOND_RELEASE, *THIRD_RELEASE), golden("v3.json"), strict=True))
NEWEST = list(zip(EVERY_TYPE, golden("v4.json"), strict=True))


def test_the_samples_hold_every_event_type() -> None:
    assert {type(event) for event in EVERY_TYPE} == set(get_args(Event))


@pytest.mark.parametrize(("event", "stored"), [*FIRST, *SECOND, *THIRD, *NEWEST])
def test_every_released_form_is_still_read(event: Event, stored: dict[str, Any]) -> None:
    assert decode(stored["type"], orjson.dumps(stored["data"])) == event


@pytest.mark.parametrize(("event", "stored"), NEWEST)
def test_the_newest_form_is_written(event: Event, stored: dict[str, Any]) -> None:
    assert encode(event) == (stored["type"], orjson.dumps(stored["data"]))


@given(events())
def test_every_event_comes_back_as_it_was(event: Event) -> None:
    back = decode(*encode(event))
    assert back == event
    assert repr(back) == repr(event)


def test_a_field_that_is_not_stored_takes_its_default() -> None:
    assert decode("InstanceResumed", b'{"by":"ops"}') == InstanceResumed(by="ops")


def test_an_unknown_type_is_named() -> None:
    with pytest.raises(UnreadableEvent, match="knows no event type 'InstanceTeleported'"):
        decode("InstanceTeleported", b"{}")


@pytest.mark.parametrize("data", ['{"resul":1}', "{}", "[]", "1", "{", '{"result":1,"$v":2}', '{"result":1,"$v":0}'])
def test_data_of_another_shape_is_refused(data: str) -> None:
    with pytest.raises(UnreadableEvent, match="InstanceCompleted is stored in"):
        decode("InstanceCompleted", data)


@pytest.mark.parametrize("thing", [Where("0", 1, 2), object(), {"type": "InstanceCompleted"}])
def test_what_is_no_event_is_not_encoded(thing: Any) -> None:
    with pytest.raises(TypeError, match="is not an event type"):
        encode(thing)


def test_a_value_that_is_no_json_tree_is_not_encoded() -> None:
    with pytest.raises(TypeError):
        encode(InstanceCompleted(result={1, 2}))
