"""What an app knows of the routines that its programs name, and what it refuses."""

import linecache
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

from holdfast.processor.language.app import RESULTS, App
from holdfast.processor.language.compensating import ROUTINES
from holdfast.processor.language.routine import routine
from holdfast.schemas.errors import AppError, CompileError

OWN = {own.name: own for own in ROUTINES}

SOURCE = """
from dataclasses import dataclass
from enum import Enum
from holdfast import App, Message, receive, routine

app = App("shop")

class Placed(Message, correlation="key", type="Placed"):
    key: str

class Paid(Message, correlation="key", type="Paid"):
    key: str

class Shipped(Message, correlation="key", type="Shipped"):
    key: str

@dataclass
class Parcel:
    name: str

class Size(Enum):
    SMALL = 1

{code}

@app.workflow(start=Placed)
async def order(placed: Placed) -> object:
    return await {call}(placed.key)
"""

CHAIN = """
@routine
async def first(key: str) -> Parcel:
    import math
    parcel = await second(key, Size.SMALL)
    return parcel

@routine
async def second(key: str, size: Size) -> Parcel:
    paid = await receive(Paid, key)
    return await first(key) if paid is None else Parcel(key)
"""


OTHER = """
other = App("other")

@other.activity
async def pay(key): ...

@routine
async def first(key):
    await pay(key)
"""


@pytest.fixture
def define() -> Iterator[Any]:
    """Make a module of a source."""
    names = []

    def load(name: str, source: str) -> ModuleType:
        file = f"<{name}>"
        linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
        module = ModuleType(name)
        module.__file__ = file
        sys.modules[name] = module
        names.append(name)
        exec(compile(source, file, "exec"), vars(module))  # noqa: S102 - the sources stand here
        return module

    yield load
    for name in names:
        del sys.modules[name]


def test_routines_are_found_from_one_to_the_next_with_types_messages_and_modules(define: Any) -> None:
    shop = define("shop", SOURCE.format(code=CHAIN, call="first"))
    shop.app.check()
    assert shop.app.routines == {**OWN, "first": shop.first, "second": shop.second}
    assert set(shop.app.messages) == {"Placed", "Paid", *(kind.message_type for kind in RESULTS)}
    assert shop.app.workflows["order"].receives == {"Placed", "Paid"}
    assert shop.second.definition.receives == {"Paid"}
    assert "math" in shop.app.types.modules
    names = {"shop.Parcel", "shop.Size"}
    assert names <= {f"{kind.__module__}.{kind.__qualname__}" for kind in shop.app._classes()}


def test_a_routine_of_another_module_is_found_by_its_dotted_name(define: Any) -> None:
    define("chain", SOURCE.format(code=CHAIN, call="first"))
    shop = define("shop", SOURCE.format(code="import chain", call="chain.first"))
    assert set(shop.app.routines) == {*OWN, "first", "second"}


@pytest.mark.parametrize("declared", [True, False])
def test_a_routine_that_only_a_helper_names_can_be_declared(define: Any, declared: bool) -> None:  # noqa: FBT001 - given by pytest
    helper = f"{CHAIN}\ndef helper(key):\n    return first(key)"
    source = SOURCE.format(code=helper, call="helper")
    shop = define("shop", source)
    app = App("shop", routines=(shop.first,) if declared else ())
    assert set(app.routines) - set(OWN) == ({"first", "second"} if declared else set())


@pytest.mark.parametrize(
    ("code", "what"),
    [
        ("@routine\nasync def first(key):\n    return await receive(Paid, missing(key))", "routine first uses missing"),
        (
            OTHER,
            "routine first uses activity 'pay' of another app",
        ),
        (
            "@routine(name='first')\nasync def other(key): ...\n@routine\nasync def first(key):\n    await other(key)",
            "two routines are named 'first', at <shop>:",
        ),
        ("from __future__ import annotations\n@routine\nasync def first(key: Gone): ...", "unknown type"),
    ],
)
def test_what_a_routine_lacks_is_told_when_the_app_is_checked(define: Any, code: str, what: str) -> None:
    source = SOURCE.format(code=code.removeprefix("from __future__ import annotations\n"), call="first")
    if "Gone" in code:
        source = "from __future__ import annotations\n" + source
    shop = define("shop", source)
    with pytest.raises(AppError, match=what):
        shop.app.check()


def test_a_routine_is_refused_for_what_a_workflow_is_refused_for(define: Any) -> None:
    code = "@routine\nasync def first(key):\n    with key:\n        await receive(Paid, key)"
    with pytest.raises(CompileError, match="a with block cannot stay open across an await"):
        define("shop", SOURCE.format(code=code, call="first"))


def test_a_name_that_is_too_long_is_refused() -> None:
    with pytest.raises(AppError, match="routine"):
        routine(name="x" * 300)(too_long)


async def too_long() -> None:
    """Have a name that is too long."""
