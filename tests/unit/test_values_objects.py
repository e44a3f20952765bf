"""Models, dataclasses, named tuples and enums come back without being made anew by their class."""

import functools
from dataclasses import InitVar, dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum, Flag, IntEnum, StrEnum, auto
from typing import Annotated, Any, Generic, NamedTuple, TypeVar

import orjson
import pytest
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, RootModel, field_validator

from holdfast.schemas.errors import UnreadableValue
from holdfast.schemas.values import Types, declarable, decode, encode
from tests.support.graphs import difference

T = TypeVar("T")


class Size(Enum):
    SMALL = "s"
    LARGE = ("l", 2)


class Level(IntEnum):
    LOW = 1


class Word(StrEnum):
    YES = "yes"


class Right(Flag):
    READ = auto()
    WRITE = auto()
    HUGE = 2**70


class Line(BaseModel):
    model_config = ConfigDict(frozen=True)
    article: str
    price: Decimal = Decimal(1)


class Order(BaseModel):
    model_config = ConfigDict(extra="allow")
    order_id: Annotated[str, Field(min_length=1)]
    lines: list[Line] = []
    placed: datetime | None = None
    _seen: int = PrivateAttr(default=0)
    _unset: str = PrivateAttr()

    @field_validator("order_id")
    @classmethod
    def never_twice(cls, value: str) -> str:
        return value + "!"

    @functools.cached_property
    def connection(self) -> object:
        return object()


class Words(RootModel[list[str]]):
    pass


class Box(BaseModel, Generic[T]):
    content: T


@dataclass
class Plain:
    x: int
    start: InitVar[int] = 0
    items: list[int] = field(default_factory=list)
    derived: int = field(init=False, default=0)

    def __post_init__(self, start: int) -> None:
        self.derived = start + 1
        self.kept_too = [self.items]

    @functools.cached_property
    def connection(self) -> object:
        return object()


@dataclass(frozen=True)
class Frozen:
    x: Any

    def __post_init__(self) -> None:
        if self.x is None:
            raise ValueError("never made by a reload")


@dataclass(slots=True, frozen=True, kw_only=True)
class Slotted:
    x: Any
    y: int = 1


@dataclass
class HalfSlotted:
    __slots__ = ("__dict__", "x")
    x: int


class Point(NamedTuple):
    x: int
    y: Any = 2


class NamedPoint(Point):
    """It has a ``__dict__``, unlike its base."""


TYPES = Types.of(
    Size, Level, Word, Right, Order, Words, Box[int], Plain, Frozen, Slotted, HalfSlotted, Point, NamedPoint
)


def reloaded(value: Any) -> Any:
    return decode(orjson.loads(orjson.dumps(encode({"x": value}, TYPES))), TYPES)["x"]


EXAMPLES = [
    Size.SMALL,
    Size.LARGE,
    Level.LOW,
    Word.YES,
    Right.READ,
    Right.READ | Right.WRITE,
    Right.HUGE,
    Right(0),
    Order(order_id="1"),
    Order(order_id="1", lines=[Line(article="a")], placed=datetime(2024, 1, 1, tzinfo=UTC)),
    Order.model_validate({"order_id": "1", "$more": {"a": 1}, "z": [1]}),
    Order.model_construct(order_id=None),  # type: ignore[arg-type]  # what no validation would pass
    Words(["a"]),
    Box[int](content=1),
    Plain(1, start=4, items=[1]),
    Frozen([1]),
    Slotted(x=[1]),
    HalfSlotted(1),
    Point(1),
    Point(1, [2]),
    {Size.SMALL: 1, Level.LOW: 2, Frozen(1): 3, Point(1): 4, Line(article="x"): 5},
]


@pytest.mark.parametrize("value", EXAMPLES, ids=lambda value: repr(value)[:50])
def test_an_object_comes_back_exactly(value: object) -> None:
    assert difference(value, reloaded(value)) is None


def test_a_model_keeps_what_was_set_and_its_private_attributes() -> None:
    order = Order(order_id="1", lines=[])
    order._seen = 3
    back = reloaded(order)
    assert back.model_fields_set == {"order_id", "lines"}
    assert back._seen == 3
    assert back.order_id == "1!"  # The validator has not run again.
    back._seen += 1
    assert not hasattr(back, "_unset")


def test_an_invalid_model_comes_back_as_it_is() -> None:
    order = Order(order_id="1")
    order.lines = "not a list"  # type: ignore[assignment]  # that is the case in point
    assert reloaded(order).lines == "not a list"


def test_cached_properties_are_computed_anew() -> None:
    order, plain = Order(order_id="1"), Plain(1)
    assert order.connection is not None
    assert plain.connection is not None
    assert "connection" not in vars(reloaded(order))
    assert "connection" not in vars(reloaded(plain))


def test_an_attribute_that_was_deleted_stays_away() -> None:
    half = HalfSlotted(1)
    del half.x
    assert not hasattr(reloaded(half), "x")


def test_a_subclass_of_a_named_tuple_keeps_its_attributes() -> None:
    point = NamedPoint(1)
    point.colour = "red"  # type: ignore[attr-defined]  # as anyone can
    back = reloaded(point)
    assert type(back) is NamedPoint
    assert vars(back) == {"colour": "red"}


def test_names_of_fields_stand_in_the_tree() -> None:
    assert encode({"x": Line(article="a", price=Decimal("1.5"))}, TYPES)["x"] == {
        "$object": f"{__name__}:Line",
        "article": "a",
        "price": {"$decimal": "1.5"},
    }


def test_a_field_that_a_class_has_gained_takes_its_default() -> None:
    trees: dict[str, Any] = {
        "line": {"$object": f"{__name__}:Line", "article": "a"},
        "plain": {"$object": f"{__name__}:Plain", "x": 1},
        "point": {"$object": f"{__name__}:Point", "x": 1},
        "order": {"$object": f"{__name__}:Order", "order_id": "1"},
    }
    back: dict[str, Any] = decode(trees, TYPES)
    assert back["line"] == Line(article="a")
    assert back["line"].model_fields_set == {"article"}
    assert back["plain"].items == []
    assert back["point"] == (1, 2)
    assert back["order"]._seen == 0


def test_what_a_class_has_lost_is_dropped_but_can_be_referred_to() -> None:
    trees: dict[str, Any] = {
        "line": {"$object": f"{__name__}:Line", "article": "a", "price": 1, "gone": [1], "$private": {"_gone": 1}},
        "plain": {"$object": f"{__name__}:Frozen", "x": 1, "gone": [2]},
        "a": {"$ref": "line/gone"},
        "b": {"$ref": "plain/gone"},
    }
    back: dict[str, Any] = decode(trees, TYPES)
    assert (back["a"], back["b"]) == ([1], [2])
    assert vars(back["line"]) == {"article": "a", "price": 1}
    assert vars(back["plain"]) == {"x": 1}


def test_classes_that_fields_mention_are_declared_with_their_owner() -> None:
    types = Types.of(Order)
    assert Line in types.names
    order = Order(order_id="1", lines=[Line(article="a")])
    assert difference(order, decode(encode({"x": order}, types), types)["x"]) is None


def test_a_class_can_be_renamed() -> None:
    before, after = Types(), Types()
    before.add(Line, "shop:Line")
    after.add(Line, "store:Line")
    after.add(Line, "shop:Line")
    tree = encode({"x": Line(article="a")}, before)
    assert tree["x"]["$object"] == "shop:Line"  # type: ignore[index,call-overload]  # the tree of an object is a dict
    back = decode(tree, after)
    assert back == {"x": Line(article="a")}
    assert encode(back, after)["x"]["$object"] == "store:Line"  # type: ignore[index,call-overload]  # as above


def test_a_name_given_on_purpose_goes_before_one_got_by_mention() -> None:
    types = Types.of(Order)
    types.add(Line, "shop:Line")
    assert types.names[Line] == "shop:Line"
    types.add(Line)
    assert types.names[Line] == "shop:Line"


def test_a_name_means_one_class() -> None:
    types = Types()
    types.add(Line, "x")
    with pytest.raises(ValueError, match="taken"):
        types.add(Order, "x")
    with pytest.raises(ValueError, match="taken"):
        types.add(Order, "ValueError")


def test_a_class_that_is_no_plain_data_cannot_be_declared() -> None:
    class Connection:
        pass

    @dataclass
    class Rows(list[int]):
        table: str

    for cls in (Connection, Rows, dict):
        assert not declarable(cls)
        with pytest.raises(TypeError, match="no stored form"):
            Types.of(cls)


def test_a_field_without_default_is_missed_in_a_named_tuple() -> None:
    with pytest.raises(UnreadableValue, match="variable 'x'"):
        decode({"x": {"$object": f"{__name__}:Point"}}, TYPES)
