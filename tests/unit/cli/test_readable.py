"""Stored values are shown much as Python would print them."""

from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from enum import Enum
from uuid import UUID

import pytest

from holdfast.processor.cli.readable import readable, shortened
from holdfast.schemas.values import Types, encode


class Colour(Enum):
    RED = "red"


@dataclass
class Line:
    item: str
    price: Decimal


TYPES = Types()
TYPES.add(Colour)
TYPES.add(Line)


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        -7,
        1 << 80,
        0.5,
        "it's",
        [1, "a", [None]],
        (1, 2),
        (1,),
        (),
        {"a": 1, "b": [2]},
        {1: "one"},
        {"$key": 1},
        {3},
        set(),
        Decimal("1.50"),
        UUID(int=7),
        timedelta(days=3, seconds=1),
        [(1, 2), {"a": Decimal(2)}],
    ],
    ids=repr,
)
def test_a_value_reads_as_its_repr(value: object) -> None:
    assert readable(encode({"v": value}, TYPES)["v"]) == repr(value).removeprefix("datetime.")


def test_an_object_reads_as_its_class_with_its_fields() -> None:
    tree = encode({"v": Line(item="chair", price=Decimal(9))}, TYPES)["v"]
    assert readable(tree) == "Line(item='chair', price=Decimal('9'))"


def test_an_exception_reads_as_its_class_with_its_arguments() -> None:
    assert readable(encode({"v": ValueError("no", 3)}, TYPES)["v"]) == "ValueError('no', 3)"


def test_an_enum_reads_as_its_class_with_its_member() -> None:
    assert readable(encode({"v": Colour.RED}, TYPES)["v"]) in ("Colour('RED')", "Colour('red')")


def test_an_alias_says_what_it_is_an_alias_of() -> None:
    shared = [1]
    trees = encode({"first": shared, "second": shared}, TYPES)
    assert readable(trees["second"]) == "the same as first"


def test_a_tag_of_its_own_kind_is_shown_with_its_name() -> None:
    assert readable({"$date": "2026-01-31"}) == "date('2026-01-31')"


def test_what_is_long_is_shortened_to_one_line() -> None:
    assert shortened("a\nb") == "a b"
    assert shortened("x" * 80) == "x" * 80
    assert shortened("x" * 81) == "x" * 79 + "…"
