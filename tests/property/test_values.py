"""Laws of the values codec over random graphs of objects: nothing changes by a trip through JSON, aliases included."""

import dataclasses
from collections.abc import Callable
from datetime import UTC, timedelta, timezone
from enum import Enum, Flag, auto
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, PrivateAttr
from pydantic_core import TzInfo

from holdfast.schemas.values import Types, decode, encode
from tests.support.graphs import difference


class Colour(Enum):
    RED = "r"
    BLUE = ("b", 1)


class Right(Flag):
    READ = auto()
    WRITE = auto()


class Loose(BaseModel):
    model_config = ConfigDict(extra="allow")
    x: Any = None
    y: Any = None
    _hidden: Any = PrivateAttr(default=None)


@dataclasses.dataclass
class Pair:
    x: Any
    y: Any


@dataclasses.dataclass(frozen=True, slots=True)
class Frozen:
    x: Any


@dataclasses.dataclass(frozen=True)
class Key:
    text: str
    number: int


@dataclasses.dataclass(eq=False)
class Node:
    label: int
    peers: Any


class Point(NamedTuple):
    x: Any
    y: Any = None


class Failure(Exception):
    def __init__(self, *, subject: Any) -> None:
        super().__init__("failed", subject)
        self.subject = subject


TYPES = Types.of(Colour, Right, Loose, Pair, Frozen, Key, Node, Point, Failure)

# Text with lone surrogates and NUL is text to Python.
texts = st.one_of(
    st.text(st.characters(exclude_categories=()), max_size=6), st.sampled_from(["$ref", "$", "$$x", "a/~b"])
)
zones = st.one_of(
    st.none(),
    st.just(UTC),
    st.sampled_from([ZoneInfo("Europe/Berlin"), ZoneInfo("America/St_Johns"), TzInfo(0), TzInfo(-5400)]),
    st.builds(timezone, st.timedeltas(-timedelta(hours=23), timedelta(hours=23))),
)
hashable = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([2**63, -(2**63) - 1, 10**30]),
    st.floats(allow_nan=False),
    texts,
    st.binary(max_size=6),
    st.decimals(allow_nan=False),
    st.uuids(),
    st.dates(),
    st.datetimes(timezones=zones, allow_imaginary=False),
    st.times(timezones=st.sampled_from([None, UTC, TzInfo(5400)])),
    st.timedeltas(),
    st.sampled_from([*Colour, Right.READ, Right.READ | Right.WRITE, int, Key, range(3)]),
)
scalars = st.one_of(
    hashable,
    st.just(float("nan")),
    st.decimals(allow_nan=True),
    st.builds(slice, st.integers(), st.none()),
    st.builds(bytearray, st.binary(max_size=4)),
)
keys = st.recursive(
    st.one_of(hashable, st.builds(Key, texts, st.integers())),
    lambda inner: st.one_of(st.tuples(inner, inner), st.frozensets(inner, max_size=3)),
    max_leaves=4,
)


def failure(subject: Any, cause: Any) -> Failure:
    error = Failure(subject=subject)
    error.__cause__ = cause if isinstance(cause, BaseException) else None
    error.add_note("noted")
    return error


def loose(first: Any, second: Any) -> Loose:
    values = {"x": first, "more": second}
    model = Loose.model_construct(**values)
    model._hidden = second
    return model


def group(first: Any, second: Any) -> Any:
    return ExceptionGroup("both", [first if isinstance(first, Exception) else ValueError(first), KeyError(second)])


def knot(first: Any, second: Any) -> Any:
    inner = [first]
    outer = (inner, second)
    inner.append(outer)
    return outer


MAKERS: list[Callable[[Any, Any], Any]] = [
    lambda first, second: [first, second],
    lambda first, second: (first, second),
    lambda first, second: {"$first": first, "second": second},
    lambda first, second: {"first": first, "second": second},
    Pair,
    Point,
    loose,
    lambda first, second: Loose(x=first, y=second),
    lambda first, second: Frozen(first),
    failure,
    group,
    knot,
]


@st.composite
def graphs(draw: st.DrawFn) -> dict[str, Any]:
    """Give variables that share objects and lead back to themselves."""
    pool: list[Any] = []

    def part() -> Any:
        shared: bool = bool(pool) and draw(st.booleans())
        return draw(st.sampled_from(pool)) if shared else draw(scalars)

    for number in range(draw(st.integers(0, 10))):
        match draw(st.integers(0, 4)):
            case 0:
                pool.append(draw(st.sets(keys, max_size=4)))
            case 1:
                pool.append(dict.fromkeys(draw(st.lists(keys, max_size=4)), part()))
            case 2:
                nodes = {each for each in pool if isinstance(each, Node)}
                pool.append(Node(number, draw(st.sampled_from([nodes, frozenset(nodes), part()]))))
            case _:
                pool.append(draw(st.sampled_from(MAKERS))(part(), part()))
    for _ in range(draw(st.integers(0, 4)) if pool else 0):
        owner, other = draw(st.sampled_from(pool)), draw(st.sampled_from(pool))
        match owner:
            case list():
                owner.append(other)
            case dict():
                owner["later"] = other
            case Pair() | Loose():
                owner.x = other
            case Node():
                owner.peers = other
            case BaseException() if isinstance(other, BaseException):
                owner.__context__ = other
    names = draw(st.lists(st.text(max_size=5), max_size=5, unique=True))
    return {name: part() for name in names}


def reloaded(trees: dict[str, Any]) -> dict[str, Any]:
    loaded: dict[str, Any] = orjson.loads(orjson.dumps(trees))
    return loaded


@given(graphs())
@settings(max_examples=400)
def test_a_graph_comes_back_with_types_values_and_aliases(variables: dict[str, Any]) -> None:
    trees = encode(variables, TYPES)
    back = decode(reloaded(trees), TYPES)
    assert list(back) == list(variables)
    assert difference(variables, back) is None


@given(graphs(), st.randoms())
@settings(max_examples=100)
def test_the_order_of_the_trees_does_not_matter(variables: dict[str, Any], random: Any) -> None:
    trees = list(reloaded(encode(variables, TYPES)).items())
    random.shuffle(trees)
    back = decode(dict(trees), TYPES)
    assert difference(variables, {name: back[name] for name in variables}) is None


@given(st.lists(st.one_of(scalars, keys, st.sets(keys), st.dictionaries(keys, scalars)), max_size=5))
def test_what_came_back_is_written_as_it_was(values: list[Any]) -> None:
    variables = {"x": values, "y": (values, {"z": values}), "e": failure(values, KeyError())}
    text = orjson.dumps(encode(variables, TYPES))
    back = decode(orjson.loads(text), TYPES)
    assert orjson.dumps(encode(back, TYPES)) == text


@given(graphs())
@settings(max_examples=50)
def test_encoding_again_gives_the_same(variables: dict[str, Any]) -> None:
    assert orjson.dumps(encode(variables, TYPES)) == orjson.dumps(encode(variables, TYPES))
