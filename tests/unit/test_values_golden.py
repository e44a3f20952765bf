"""Version 1 of the stored form of values, kept by a file that no later version may fail to read.

``python -m tests.unit.test_values_golden`` writes the file; that is right only for kinds of values that were added.
"""

import asyncio
import math
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, Flag, auto
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

import orjson
from pydantic import BaseModel, ConfigDict, PrivateAttr
from pydantic_core import TzInfo

from holdfast.schemas.errors import RemoteError
from holdfast.schemas.values import Types, decode, encode
from holdfast.schemas.values.codec import TAGS
from tests.support.graphs import difference

FILE = Path(__file__).parents[1] / "golden" / "values" / "v1.json"


class Colour(Enum):
    RED = "r"


class Right(Flag):
    READ = auto()
    WRITE = auto()


class Order(BaseModel):
    model_config = ConfigDict(extra="allow")
    order_id: str
    amount: Decimal = Decimal(0)
    _seen: list[int] = PrivateAttr(default_factory=list)


@dataclass(frozen=True)
class Line:
    article: str
    count: int


class Point(NamedTuple):
    x: int
    y: int


class OutOfStock(Exception):
    def __init__(self, article: str) -> None:
        super().__init__(f"{article} is out of stock")
        self.article = article


TYPES = Types(modules=["math"])
for cls in (Colour, Right, Order, Line, Point, OutOfStock):
    TYPES.add(cls, f"golden:{cls.__name__}")
TYPES.add(asyncio.CancelledError)


def examples() -> dict[str, Any]:
    """Make one value of every kind."""
    ring: list[Any] = [1]
    ring.append(ring)
    knot: tuple[Any, ...] = ([], "knot")
    knot[0].append(knot)
    order = Order.model_validate({"order_id": "1", "colour": "red"})
    order._seen.append(7)
    line = Line("chair", 2)
    attributed = Line("table", 1)
    attributed.__dict__["seen"] = True
    error = OutOfStock("chair")
    error.add_note("ask again")
    error.__cause__ = OSError(2, "missing", "file")
    error.__context__ = error.__cause__
    winter = datetime.fromisoformat("2024-01-01T12:30:00.000005")
    berlin = ZoneInfo("Europe/Berlin")
    return {
        "0.plain": [None, True, False, 0, -1, 2**63 - 1, 0.5, -0.0, 1e300, "text", "é€😀", {"b": 1, "a": [2], "": {}}],
        "0.int": [2**63, -(2**100)],
        "0.float": [math.nan, math.inf, -math.inf],
        "0.str": ["\ud800", "a\0b\\"],
        "0.bytes": b"\x00\xff",
        "0.bytearray": bytearray(b"abc"),
        "0.decimal": [Decimal("1.10"), Decimal("-0"), Decimal("sNaN7")],
        "0.uuid": UUID(int=1),
        "0.date": date(2024, 2, 29),
        "0.time": [time(1, 2, 3, 4), time(1, tzinfo=UTC, fold=1), time(1, tzinfo=berlin)],
        "0.datetime": [
            winter,
            winter.replace(tzinfo=UTC),
            winter.replace(tzinfo=timezone(-timedelta(hours=3, minutes=30)), fold=1),
            winter.replace(tzinfo=timezone(timedelta(hours=1), "CET")),
            winter.replace(tzinfo=berlin),
            winter.replace(tzinfo=TzInfo(5400)),
        ],
        "0.timedelta": timedelta(days=-1, microseconds=1),
        "0.zones": [UTC, timezone(timedelta(hours=1), "CET"), berlin, TzInfo(-3600)],
        "0.range": [range(3), range(2**70, 0, -1)],
        "0.slice": slice(1, None, 2),
        "0.tuple": (1, ("a", [])),
        "0.set": {3, 1, 2},
        "0.frozenset": frozenset({"b", "a", None}),
        "0.dict": {1: "a", "$ref": "b", "\ud800": "c", (1, 2): [Decimal(1)]},
        "0.module": math,
        "0.class": [int, Line, ValueError],
        "0.enum": [Colour.RED, Right.READ | Right.WRITE],
        "0.model": [order, Order.model_construct(order_id="2", amount=Decimal(1))],
        "0.dataclass": [line, attributed, line],
        "0.namedtuple": Point(1, 2),
        "0.exception": error,
        "0.exceptions": [error.__cause__, KeyError("k"), asyncio.CancelledError()],
        "0.group": ExceptionGroup("both", [ValueError(1), error]),
        "0.remote": RemoteError("shop:Gone", "it was here"),
        "0.ring": ring,
        "0.knot": knot,
        "0.alias/~": [order, knot],
    }


def tags(tree: object) -> set[str]:
    """Collect the tags that a tree has."""
    if isinstance(tree, dict):
        first = {key for key in list(tree)[:1] if key.startswith("$")}
        return first.union(*map(tags, tree.values()))
    return set().union(*map(tags, tree)) if isinstance(tree, list) else set()


def test_version_1_is_read() -> None:
    assert difference(examples(), decode(orjson.loads(FILE.read_bytes()), TYPES)) is None


def test_version_1_is_written() -> None:
    golden = orjson.loads(FILE.read_bytes())
    assert orjson.dumps(encode(examples(), TYPES)) == orjson.dumps(golden)
    assert orjson.dumps(encode(decode(golden, TYPES), TYPES)) == orjson.dumps(golden)


def test_version_1_shows_every_tag() -> None:
    assert tags(orjson.loads(FILE.read_bytes())) == TAGS.keys()


def test_version_1_names_a_class_that_is_gone() -> None:
    lost = Types(modules=["math"])
    for cls in (Colour, Right, Order, Line, Point):
        lost.add(cls, f"golden:{cls.__name__}")
    back: Any = decode(orjson.loads(FILE.read_bytes()), lost)
    assert type(back["0.exception"]) is RemoteError
    assert back["0.exception"].type_name == "golden:OutOfStock"
    assert back["0.group"].exceptions[1] is back["0.exception"]


if __name__ == "__main__":
    FILE.write_bytes(orjson.dumps(encode(examples(), TYPES), option=orjson.OPT_INDENT_2) + b"\n")
