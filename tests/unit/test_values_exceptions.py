"""Exceptions come back with type, arguments, attributes, notes and chain, whatever they hold."""

import asyncio
from dataclasses import dataclass
from typing import Any

import orjson
import pytest
from pydantic import BaseModel, ValidationError

from holdfast.schemas.errors import CompensationError, RemoteError, ScopeError
from holdfast.schemas.values import Types, decode, encode
from tests.support.graphs import difference


class OutOfStock(Exception):
    def __init__(self, article: str, *, wanted: int) -> None:
        super().__init__(f"{article} is out of stock")
        self.article = article
        self.wanted = wanted


@dataclass
class Declined(Exception):
    reason: str


class Coded(Exception):
    __slots__ = ("code",)
    code: int


class NotFound(FileNotFoundError):
    pass


class Several(ExceptionGroup[Exception]):
    pass


class Broken(Exception):
    def __str__(self) -> str:
        raise RuntimeError("cannot say")

    __repr__ = __str__


TYPES = Types.of(OutOfStock, Declined, Coded, NotFound, Several, asyncio.CancelledError, Broken)


def reloaded(variables: dict[str, Any], types: Types = TYPES) -> dict[str, Any]:
    return decode(orjson.loads(orjson.dumps(encode(variables, TYPES))), types)


def decode_error() -> UnicodeDecodeError:
    with pytest.raises(UnicodeDecodeError) as caught:
        b"\xff".decode()
    return caught.value


def coded() -> Coded:
    error = Coded("x")
    error.code = 7
    return error


EXAMPLES = [
    ValueError(),
    ValueError("wrong", 1, (2, [3])),
    KeyError("k"),
    OSError(2, "missing", "a", None, "b"),
    OSError("only text"),
    FileNotFoundError(2, "missing", "a"),
    NotFound(2, "missing"),
    ImportError("no", name="n", path="p"),
    AttributeError("no", name="n"),
    NameError("no", name="n"),
    StopIteration(5),
    SystemExit(3),
    KeyboardInterrupt(),
    asyncio.CancelledError("stop"),
    TimeoutError(),
    decode_error(),
    SyntaxError("bad", ("file", 1, 2, "text", 1, 3)),
    OutOfStock("chair", wanted=2),
    Declined("no money"),
    coded(),
    RemoteError("shop:Gone", "it was"),
    ExceptionGroup("both", [ValueError(1), OutOfStock("chair", wanted=2)]),
    BaseExceptionGroup("base", [KeyboardInterrupt()]),
    Several("own", [ExceptionGroup("inner", [KeyError(1)])]),
]


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_an_exception_comes_back_exactly(error: BaseException) -> None:
    back = reloaded({"x": error})["x"]
    assert difference(error, back) is None
    assert str(back) == str(error)
    assert vars(back) == vars(error)


def test_the_members_of_a_group_come_back() -> None:
    error = Several("own", [ValueError(1), KeyError(2)])
    back = reloaded({"x": error, "y": error.exceptions[1]})
    assert back["x"].message == "own"
    assert [type(each) for each in back["x"].exceptions] == [ValueError, KeyError]
    assert back["x"].exceptions[1] is back["y"]


def test_notes_and_chain_come_back() -> None:
    cause, error, last = KeyError("k"), OutOfStock("chair", wanted=1), ValueError("handling")
    error.__cause__ = error.__context__ = cause
    error.add_note("ask again")
    last.__context__ = error
    back = reloaded({"last": last, "first": cause})
    assert difference({"last": last, "first": cause}, back) is None
    middle = back["last"].__context__
    assert middle.__notes__ == ["ask again"]
    assert middle.__cause__ is back["first"] is middle.__context__
    assert middle.__suppress_context__
    assert not back["last"].__suppress_context__


def test_raise_from_none_comes_back() -> None:
    error = ValueError()
    error.__context__ = KeyError()
    error.__suppress_context__ = True
    assert difference(error, reloaded({"x": error})["x"]) is None


def test_a_chain_that_leads_back_to_itself() -> None:
    one, two = ValueError("one"), KeyError("two")
    one.__cause__, two.__context__ = two, one
    group = ExceptionGroup("both", [one])
    one.args = (group, one)
    group.__context__ = ExceptionGroup("other", [two])
    group.__context__.__context__ = group
    for name, value in {"one": one, "two": two, "group": group}.items():
        assert difference(value, reloaded({name: value})[name]) is None


def test_what_cannot_be_encoded_becomes_its_repr() -> None:
    connection = object()
    error = OutOfStock("chair", wanted=2)
    error.args = ("chair", [connection], 5)
    error.connection = connection  # type: ignore[attr-defined]  # as anyone can
    error.broken = Broken  # type: ignore[attr-defined]  # as above
    back = reloaded({"x": error})["x"]
    assert back.args == ("chair", repr([connection]), 5)
    assert back.connection == repr(connection)
    assert back.wanted == 2
    assert back.broken is Broken


def test_what_was_given_up_is_no_target_of_references() -> None:
    shared: list[Any] = [1]
    error = ValueError([shared, object()])
    trees = encode({"x": error, "y": shared}, TYPES)
    assert trees["y"] == [1]


def test_an_exception_whose_str_and_repr_are_broken() -> None:
    error = Broken(Broken, lambda: None)
    back = reloaded({"x": error, "y": ValueError(type("Odd", (), {"__repr__": Broken.__str__})())})
    assert type(back["x"]) is Broken
    assert back["y"].args == (f"<{__name__}.Odd object>",)


def test_a_chain_that_is_too_long_keeps_its_end_as_a_gist() -> None:
    first = ValueError(0)
    error: BaseException | None = first
    for number in range(1, 1000):
        later = OutOfStock("chair", wanted=number)
        later.__context__ = error
        error = later
    back: Any = reloaded({"x": error})["x"]
    length = 0
    while back.__context__ is not None and error is not None:
        back, error, length = back.__context__, error.__context__, length + 1
    assert length > 100
    assert type(back) is type(error)
    assert str(back) == str(error)
    assert error is not first


def test_groups_that_are_nested_too_deeply_end_as_a_gist() -> None:
    error: Exception = ValueError("innermost")
    for number in range(300):
        error = ExceptionGroup(f"group {number}", [error])
    back = reloaded({"x": error})["x"]
    while isinstance(back, ExceptionGroup):
        back = back.exceptions[0]
    assert type(back) is RemoteError
    assert back.type_name == "ExceptionGroup"
    assert back.message.startswith("group ")


def test_a_class_that_is_gone_becomes_a_remote_error() -> None:
    error = OutOfStock("chair", wanted=2)
    error.__cause__ = KeyError("k")
    back = reloaded({"x": error, "same": error}, Types())
    assert type(back["x"]) is RemoteError
    assert back["x"] is back["same"]
    assert back["x"].type_name == f"{__name__}:OutOfStock"
    assert back["x"].message == "chair is out of stock"
    assert back["x"].args == ("chair is out of stock",)
    assert back["x"].wanted == 2
    assert type(back["x"].__cause__) is KeyError
    assert difference(back, decode(encode(back, Types()), Types())) is None


def test_a_message_that_arguments_do_not_tell_survives_the_class() -> None:
    back = reloaded({"x": Declined("no money")}, Types())["x"]
    assert str(back) == f"{__name__}:Declined: no money"


def test_an_exception_that_only_its_class_can_make_becomes_a_remote_error() -> None:
    class Order(BaseModel):
        amount: int

    with pytest.raises(ValidationError) as caught:
        Order(amount="much")  # type: ignore[arg-type]  # that is the error
    types = Types.of(ValidationError)
    back = decode(encode({"x": caught.value}, types), types)["x"]
    assert type(back) is RemoteError
    assert "amount" in back.message


def test_a_group_with_a_member_of_a_kind_it_cannot_have_becomes_a_remote_error() -> None:
    error = BaseExceptionGroup("both", [asyncio.CancelledError()])
    tree: Any = encode({"x": error}, TYPES)["x"]
    back = decode({"x": {**tree, "$exception": "ExceptionGroup"}}, TYPES)["x"]
    assert type(back) is RemoteError
    assert type(back.args[1][0]) is asyncio.CancelledError


def test_a_group_whose_class_is_gone_keeps_its_exceptions() -> None:
    inner = ValueError(1)
    error = Several("own", [inner])
    inner.__context__ = error
    back = reloaded({"x": error, "inner": inner}, Types())
    assert type(back["x"]) is RemoteError
    assert back["x"].args[1][0] is back["inner"]
    assert back["inner"].__context__ is back["x"]


def test_an_error_of_holdfast_needs_no_declaration() -> None:
    error = ScopeError(what="checkpoint() inside no_persist()", mend="Take it out.", line=3)
    error.__context__ = CompensationError("only a completed scope can be undone")
    back = decode(orjson.loads(orjson.dumps(encode({"x": error}, Types()))), Types())["x"]
    assert difference(back, error) is None
    assert str(back) == str(error)
