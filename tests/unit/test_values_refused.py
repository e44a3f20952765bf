"""What has no stored form is refused with its place, and no tree resolves to more than is declared."""

import asyncio
import collections
import dataclasses
import enum
import json
from typing import Any

import orjson
import pytest
from pydantic import BaseModel

from holdfast.schemas.errors import HoldfastError, NotPersistable, UnreadableValue
from holdfast.schemas.values import MAX_DEPTH, Types, decode, encode

TYPES = Types()


class Numbers(list[int]):
    pass


class Text(str):
    __slots__ = ()


class Colour(enum.Enum):
    RED = 1


class Order(BaseModel):
    connection: Any = None


@dataclasses.dataclass
class Line:
    article: str


class Connection:
    pass


async def activity() -> None: ...


def refusal(value: object, types: Types = TYPES) -> NotPersistable:
    with pytest.raises(NotPersistable) as caught:
        encode({"fine": 1, "order": value}, types)
    return caught.value


@pytest.mark.parametrize(
    ("value", "mend"),
    [
        (Connection(), "such as an id"),
        (Numbers(), "plain list"),
        (Text(), "plain str"),
        (collections.OrderedDict(), "plain dict"),
        (collections.defaultdict(list), "plain dict"),
        (Colour.RED, "Declare Colour"),
        (Order(), "Declare Order"),
        (Line("a"), "Declare Line"),
        (len, "call it by its name"),
        (lambda: None, "call it by its name"),
        (iter([]), "list of its items"),
        ((letter for letter in "ab"), "list of its items"),
        (json, "Import the module"),
        (Connection, "Declare Connection"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_a_value_without_stored_form_is_refused_with_a_mend(value: object, mend: str) -> None:
    error = refusal(value)
    assert (error.variable, error.path, error.line) == ("order", "", None)
    assert type(value).__name__ in error.type_name
    assert mend in error.mend


def test_an_awaitable_is_refused() -> None:
    coroutine = activity()
    assert "Await it" in refusal(coroutine).mend
    coroutine.close()


def test_a_refusal_says_where_the_value_is() -> None:
    types = Types.of(Order)
    assert refusal([{"o": (1, Order(connection=Connection()))}], types).path == "0/o/1/connection"
    assert refusal({1: {Connection()}}, types).path == "0/1/0"
    assert refusal(Order(connection={"$x": asyncio.Lock}), types).path == "connection/0/1"


def test_an_object_that_was_softened_in_an_exception_is_refused_in_a_variable() -> None:
    order = Order(connection=Connection())
    with pytest.raises(NotPersistable) as caught:
        encode({"error": ValueError(order), "order": order}, Types.of(Order))
    assert caught.value.variable == "order"


def nested(levels: int, wrap: Any = lambda inner: [inner]) -> Any:
    value: Any = []
    for _ in range(levels - 1):
        value = wrap(value)
    return value


def test_the_deepest_nesting_goes_through_json() -> None:
    value = nested(MAX_DEPTH)
    assert decode(orjson.loads(orjson.dumps({"envelope": [encode({"x": value}, TYPES)]}))["envelope"][0], TYPES)
    assert nested(MAX_DEPTH + 1) is not None
    assert "nested" in refusal(nested(MAX_DEPTH + 1)).mend


@pytest.mark.parametrize(
    "wrap",
    [
        lambda inner: [inner],
        lambda inner: (inner, []),
        lambda inner: {1: inner},
        lambda inner: {"k": inner},
        lambda inner: Order(connection=inner),
        slice,
    ],
)
def test_deeper_nesting_is_refused_rather_than_exhausting_the_stack(wrap: Any) -> None:
    types = Types.of(Order)
    for levels in range(2, 2 * MAX_DEPTH):
        try:
            trees = encode({"x": nested(levels, wrap)}, types)
        except NotPersistable as error:
            assert f"more than {MAX_DEPTH} levels" in error.mend  # noqa: PT017 - the loop ends here, at whichever depth
            break
        decode(orjson.loads(orjson.dumps({"envelope": [{"trees": trees}]}))["envelope"][0]["trees"], types)
    else:
        pytest.fail("there was no limit")


def test_a_set_of_sets_is_written_in_reasonable_time() -> None:
    value: frozenset[Any] = frozenset()
    for level in range(MAX_DEPTH // 2 - 2):
        value = frozenset({value, level, "x"})
    assert encode({"x": value}, TYPES)


def test_a_hostile_tree_does_not_exhaust_the_stack() -> None:
    with pytest.raises(UnreadableValue):
        decode({"x": nested(100_000)}, TYPES)


@pytest.mark.parametrize(
    "tree",
    [
        {"$object": "os:_wrap_close"},
        {"$object": "subprocess:Popen", "args": "true"},
        {"$object": f"{__name__}:Order"},
        {"$object": "ValueError"},
        {"$enum": "signal:Signals", "name": "SIGKILL"},
        {"$enum": f"{__name__}:Colour", "name": "RED"},
        {"$class": "subprocess:Popen"},
        {"$class": "eval"},
        {"$module": "os"},
        {"$module": "antigravity"},
    ],
    ids=str,
)
def test_a_tag_resolves_only_among_the_declared_types(tree: Any) -> None:
    with pytest.raises(UnreadableValue, match=r"variable 'x' cannot be read: .* is not among"):
        decode({"x": tree}, TYPES)


def test_an_exception_tag_never_makes_another_kind_of_class() -> None:
    back = decode({"x": {"$exception": f"{__name__}:Order", "args": []}}, Types.of(Order))["x"]
    assert type(back).__name__ == "RemoteError"


@pytest.mark.parametrize(
    "tree",
    [
        {"$nothing": 1},
        {"$ref": "y"},
        {"$ref": ""},
        {"$ref": "x"},
        {"$ref": "z/0/1"},
        {"$ref": "z/first"},
        {"$tuple": [1], "$is": "z/9"},
        {"$int": "zz"},
        {"$int": 5},
        {"$datetime": "yesterday"},
        {"$zone": "Mars/Olympus"},
        {"$decimal": "much"},
        {"$str": "é"},
        {"$dict": [[1]]},
        {"$dict": [[[], 1]]},
        {"$set": [[]]},
        {"$exception": "ValueError"},
        {"$enum": f"{__name__}:Colour", "name": "BLUE"},
    ],
    ids=str,
)
def test_a_damaged_tree_is_one_clear_error(tree: Any) -> None:
    with pytest.raises(UnreadableValue, match="variable 'x' cannot be read"):
        decode({"x": tree, "z": [1]}, Types.of(Colour))
    assert issubclass(UnreadableValue, HoldfastError)
