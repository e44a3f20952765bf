"""After a reload aliases are as they were, within a variable and between variables."""

import itertools
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import orjson
from pydantic import BaseModel

from holdfast.schemas.values import Types, decode, encode
from tests.support.graphs import difference


class Customer(BaseModel):
    name: str
    friends: list["Customer"] = []


@dataclass(frozen=True)
class Tag:
    name: str


@dataclass(eq=False)
class Node:
    label: str
    peers: "set[Node]" = field(default_factory=set)


class Edge(NamedTuple):
    start: list[Any]
    end: list[Any]


TYPES = Types.of(Customer, Tag, Node, Edge)


def reloaded(variables: dict[str, Any]) -> dict[str, Any]:
    return decode(orjson.loads(orjson.dumps(encode(variables, TYPES))), TYPES)


def test_two_variables_share_a_list() -> None:
    shared = [1]
    back = reloaded({"a": shared, "b": {"inner": shared}})
    back["a"].append(2)
    assert back["b"]["inner"] == [1, 2]


def test_a_reference_says_where_the_object_is() -> None:
    shared: list[Any] = []
    assert encode({"0.a/b": {"x~": ({"y": shared},)}, "0.c": shared}, TYPES) == {
        "0.a/b": {"x~": {"$tuple": [{"y": []}]}},
        "0.c": {"$ref": "0.a~1b/x~0/$tuple/0/y"},
    }


def test_equal_lists_stay_apart() -> None:
    back = reloaded({"a": [], "b": []})
    assert back["a"] is not back["b"]


def test_frozen_dataclasses_and_models_stay_the_same_object() -> None:
    tag, customer = Tag("x"), Customer(name="ann")
    back = reloaded({"tags": [tag, tag, Tag("x")], "c": customer, "d": (customer,)})
    assert back["tags"][0] is back["tags"][1]
    assert back["tags"][0] is not back["tags"][2]
    assert back["c"] is back["d"][0]


def test_a_list_that_holds_itself() -> None:
    ring: list[Any] = []
    ring.append(ring)
    back = reloaded({"ring": ring})["ring"]
    assert back[0] is back


def test_a_model_that_leads_back_to_itself() -> None:
    ann, bob = Customer(name="ann"), Customer(name="bob")
    ann.friends, bob.friends = [bob], [ann]
    back = reloaded({"ann": ann})["ann"]
    assert back.friends[0].friends[0] is back


def test_a_tuple_that_leads_back_to_itself() -> None:
    inner: list[Any] = []
    ring = (inner, 1)
    inner.append(ring)
    variables = {"ring": ring, "inner": inner}
    back = reloaded(variables)
    assert back["ring"][0][0] is back["ring"]
    assert back["ring"][0] is back["inner"]
    assert difference(variables, back) is None


def test_a_named_tuple_and_a_frozenset_that_lead_back_to_themselves() -> None:
    node = Node("n")
    members = frozenset({node})
    node.peers = members  # type: ignore[assignment]  # any object will do
    ends: list[Any] = []
    edge = Edge(ends, ends)
    ends.append(edge)
    variables = {"members": members, "edge": edge}
    assert difference(variables, reloaded(variables)) is None


def test_a_set_whose_members_lead_back_to_it() -> None:
    one, two = Node("one"), Node("two")
    one.peers, two.peers = {two}, {one, two}
    for variables in ({"one": one}, {"peers": two.peers}):
        assert difference(variables, reloaded(variables)) is None


def test_variables_are_read_in_any_order() -> None:
    shared: list[Any] = [1]
    variables: dict[str, Any] = {"a": [shared], "b": [shared, [2]], "c": (shared,)}
    variables["d"] = [variables["b"]]
    trees = list(encode(variables, TYPES).items())
    for order in itertools.permutations(trees):
        back = decode(dict(order), TYPES)
        assert list(back) == [name for name, _ in order]
        assert difference(variables, {name: back[name] for name in variables}) is None


def test_the_attributes_of_an_exception_can_be_shared() -> None:
    order = Customer(name="ann")
    error = ValueError(order)
    back = reloaded({"error": error, "order": order})
    assert back["error"].args[0] is back["order"]
