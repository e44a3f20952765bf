"""Every kind of value comes back from JSON with its exact type."""

import collections
import decimal
import json
import math
import os
import subprocess
import sys
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import orjson
import pytest
from pydantic import BaseModel
from pydantic_core import TzInfo

from holdfast.schemas.values import Types, decode, encode
from tests.support.graphs import difference

TYPES = Types.of(modules=["json"])


def reloaded(variables: dict[str, Any], types: Types = TYPES) -> dict[str, Any]:
    return decode(orjson.loads(orjson.dumps(encode(variables, types))), types)


SCALARS = [
    None,
    True,
    False,
    0,
    2**63 - 1,
    2**63,
    -(2**63),
    -(2**63) - 1,
    2**64,
    10**5000,
    -(10**5000),
    0.0,
    -0.0,
    0.1,
    5e-324,
    1.7976931348623157e308,
    math.inf,
    -math.inf,
    math.nan,
    "",
    "plain",
    "é€😀",
    "\ud800",
    "\ud83d\ude00",
    "a\\ud800\n\0é",
    "$ref",
    b"",
    bytes(range(256)),
    bytearray(b"changes"),
    Decimal("1.10"),
    Decimal("-0"),
    Decimal("1E+400"),
    Decimal("NaN"),
    Decimal("sNaN12"),
    Decimal("-Infinity"),
    UUID(int=2**128 - 1),
    date.min,
    date(2024, 2, 29),
    timedelta.min,
    timedelta(microseconds=-1),
    range(5),
    range(2**70, 0, -3),
    slice(1, None, 2),
    json,
    int,
    Decimal,
    ValueError,
    UTC,
    timezone(timedelta(hours=1), "one"),
    ZoneInfo("Europe/Berlin"),
    TzInfo(-9000),
]


@pytest.mark.parametrize("value", SCALARS, ids=lambda value: type(value).__name__)
def test_a_value_comes_back_exactly(value: object) -> None:
    assert difference({"x": value}, reloaded({"x": value})) is None


ZONES = [
    None,
    UTC,
    timezone(timedelta(hours=-3, minutes=-30)),
    timezone(timedelta(seconds=1, microseconds=1)),
    timezone(timedelta(0), "Z\ud800"),
    ZoneInfo("Europe/Berlin"),
    ZoneInfo("UTC"),
    TzInfo(0),
    TzInfo(5400),
]


@pytest.mark.parametrize("zone", ZONES, ids=repr)
@pytest.mark.parametrize("fold", [0, 1])
def test_a_datetime_comes_back_with_its_zone_and_fold(zone: Any, fold: int) -> None:
    moment = datetime(2024, 10, 27, 2, 30, 0, 7, tzinfo=zone, fold=fold)
    back = reloaded({"at": moment, "time": moment.timetz()})
    assert difference({"at": moment, "time": moment.timetz()}, back) is None
    assert back["at"].utcoffset() == moment.utcoffset()
    assert isinstance(back["time"], time)


def test_a_datetime_that_pydantic_parsed_comes_back_with_its_zone() -> None:
    class Placed(BaseModel):
        at: datetime

    moment = Placed.model_validate_json('{"at": "2024-01-01T00:00:00Z"}').at
    assert difference({"at": moment}, reloaded({"at": moment})) is None


CONTAINERS = [
    [],
    {},
    (),
    set(),
    frozenset(),
    [1, [2, [3]]],
    (1, (2, [3])),
    {"b": 1, "a": 2, "": 3},
    {"$ref": "x"},
    {"$": {"$tuple": [1]}},
    {"$$ref": "x"},
    {"\ud800": 1, "a\0": 2},
    {1: "a", "1": "b", None: "c", (1, 2): "d", 2.5: "e", frozenset({1}): "f"},
    {math.inf: -0.0, b"k": [math.nan]},
    {"c", "a", "b"},
    {1, "a", None, (1, "x"), frozenset({2, "y"})},
    frozenset({frozenset(), frozenset({frozenset({"x"})})}),
    [{"line\nbreak": 1, "é": 2}],
]


@pytest.mark.parametrize("value", CONTAINERS, ids=lambda value: type(value).__name__)
def test_a_container_comes_back_exactly(value: object) -> None:
    assert difference({"x": value}, reloaded({"x": value})) is None


def test_plain_data_is_written_as_it_is() -> None:
    plain = {"x": {"order": ["a", 1, 2.5, None, True, {"k": "é"}]}}
    assert encode(plain, TYPES) == plain


def test_variables_keep_their_names_and_order() -> None:
    names = ["0.z", "0.$t1", "0.1.a/b~c", "$await", ""]
    assert list(reloaded(dict.fromkeys(names, 1))) == names


def test_the_decimal_context_does_not_matter() -> None:
    value = Decimal("1.2345678901234567890")
    with decimal.localcontext(prec=3):
        assert str(reloaded({"x": value})["x"]) == str(value)


def test_a_set_is_written_alike_in_every_process() -> None:
    program = (
        "import orjson, enum\n"
        "from holdfast.schemas.values import Types, encode\n"
        "class Size(enum.Enum):\n    SMALL = 1\n    LARGE = 2\n"
        "words = [f'word{n}' for n in range(20)]\n"
        "sets = {'s': set(words), 'f': frozenset((w, None) for w in words), 'e': set(Size) | {None, 'x'},\n"
        "        'n': {frozenset(words[n:]) for n in range(20)}}\n"
        "print(orjson.dumps(encode(sets, Types.of(Size))).decode())\n"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(outputs) == 1


def test_subclasses_do_not_pass_for_what_they_derive_from() -> None:
    Point = collections.namedtuple("Point", "x y")  # noqa: PYI024 - the untyped kind has to work as well
    types = Types.of(Point)
    back = reloaded({"p": Point(1, [2])}, types)["p"]
    assert type(back) is Point
    assert back == (1, [2])
