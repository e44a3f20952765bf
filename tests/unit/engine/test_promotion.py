"""What queries find of an instance: values as plain JSON, and variables that its workflow promotes."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from decimal import Decimal
from enum import Enum, IntEnum
from typing import Any
from uuid import UUID

import pytest

from holdfast import App, Message, NotPersistable, Participant, Values, first_of, receive
from holdfast.processor.engine.promotion import plain
from holdfast.processor.testing.world import World

app = App("promotion")


class Begun(Message, correlation="key"):
    key: str
    stage: str = "begun"


class Closed(Begun): ...


class Spoilt(Begun): ...


class Kind(Enum):
    SMALL = "small"


class Size(IntEnum):
    LARGE = 3


@dataclass
class Line:
    item: str
    price: Decimal


@app.participant
class Stage(Participant):
    """Gives a value only while a test wants it to."""

    given = False

    def collect(self) -> Values:
        return Values(read_write={"kept": 1}, write_only={"stage": 1} if self.given else {})


@app.workflow(start=Begun, promote=("begun", "stage", "never"))
async def order(begun: Begun) -> str:
    if not begun.key:
        never = begun.stage
        return never * 2
    stage: Any = "waiting"
    outcome = await first_of(closed=receive(Closed, begun.key), spoilt=receive(Spoilt, begun.key))
    stage = "closed" if outcome.name == "closed" else float("inf")
    return str(stage)


@pytest.fixture
def world() -> World:
    return World(app)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ((None, True, 1, 1.5, "ü"), [None, True, 1, 1.5, "ü"]),
        ({"a": {"b": [-(2**63) + 1]}}, {"a": {"b": [-(2**63) + 1]}}),
        (datetime(2026, 1, 2, 3, tzinfo=UTC), "2026-01-02T03:00:00+00:00"),
        ([date(2026, 1, 2), time(3)], ["2026-01-02", "03:00:00"]),
        ([UUID(int=1), Decimal("2.50"), Decimal("nan")], ["00000000-0000-0000-0000-000000000001", "2.50", "NaN"]),
        ([Kind.SMALL, Size.LARGE], ["small", 3]),
        (Line("pear", Decimal(1)), {"item": "pear", "price": "1"}),
        (Begun(key="k"), {"key": "k", "stage": "begun"}),
    ],
)
def test_values_for_queries_become_json(value: object, expected: object) -> None:
    assert plain(value, "value") == expected


@pytest.mark.parametrize(
    ("value", "path", "kind"),
    [
        ({"a": [1, 1 << 63]}, "a/1", "int"),
        (float("nan"), "", "float"),
        ("a\x00", "", "str"),
        ("\ud800", "", "str"),
        ([{1: 1}], "0", "dict"),
        ({"a\x00": 1}, "", "dict"),
        ({1, 2}, "", "set"),
        (Line, "", "type"),
        ({"a": [Line("pear\x00", Decimal(1))]}, "a/0/item", "str"),
    ],
)
def test_what_is_no_json_is_refused_with_its_place(value: object, path: str, kind: str) -> None:
    with pytest.raises(NotPersistable) as caught:
        plain(value, "value")
    assert (caught.value.variable, caught.value.path, caught.value.type_name) == ("value", path, kind)


async def test_variables_that_a_workflow_promotes_are_shown_as_they_are_at_each_persistence_point(
    world: World,
) -> None:
    host = await world.host()
    await host.deliver(Begun(key="k"), "m1")
    assert world.state.promoted == {"begun": {"key": "k", "stage": "begun"}, "stage": "waiting"}
    await host.deliver(Closed(key="k"), "m2")
    assert world.state.promoted["stage"] == "closed"


async def test_promotion_leaves_alone_what_participants_kept(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    host = await world.host()
    await host.deliver(Begun(key="k"), "m1")
    await host.engine.unload_idle(0)
    monkeypatch.setattr(app, "participants", {})
    await host.deliver(Closed(key="k"), "m2")
    assert world.state.promoted["stage"] == "closed"
    assert world.state.values == {"kept": 1}


async def test_a_variable_that_is_promoted_takes_its_name(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Stage, "given", True)
    host = await world.host()
    await host.deliver(Begun(key="k"), "m1")
    assert world.row.suspension_exception_name == "holdfast.schemas.errors.ParticipantError"


async def test_a_variable_that_cannot_be_promoted_suspends(world: World) -> None:
    host = await world.host()
    await host.deliver(Begun(key="k"), "m1")
    await host.deliver(Spoilt(key="k"), "m2")
    assert world.state.suspension_reason == "not_persistable"
    detail = world.state.suspension_detail or ""
    assert "'stage' holds a float" in detail
    assert "It is a value of workflow order" in detail
    assert world.state.promoted["stage"] == "waiting"
