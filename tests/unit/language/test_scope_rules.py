"""What may not stand inside of a scope is refused when the decorator runs."""

from typing import Any

import pytest

import holdfast
from holdfast.processor.language.app import App
from holdfast.processor.language.compiler import compile_workflow
from holdfast.schemas.errors import CompileError
from tests.unit.language.test_refusals import define

app = App("scopes")


@app.activity(repeatable=False)
async def once() -> None: ...


@app.activity(queue="printers")
async def queued() -> None: ...


@app.activity
async def plain() -> None: ...


NAMES: dict[str, Any] = {
    **{name: getattr(holdfast, name) for name in holdfast.__all__ if name[0].islower()},
    "holdfast": holdfast,
    "once": once,
    "queued": queued,
    "plain": plain,
}


def scoped(scope: str, statement: str) -> str:
    return f"async def w(x):\n    async with {scope}:\n        {statement}"


INSIDE = [
    ("await receive(x, 1)", r"receive\(\)"),
    ("y = await delay(x)", r"delay\(\)"),
    ("return await first_of(a=delay(x))", r"(first_of|delay)\(\)"),
    ("await gather(receive(x, 1), act(2))", r"receive\(\)"),
    ("await holdfast.checkpoint()", r"checkpoint\(\)"),
    ("await suspend('now')", r"suspend\(\)"),
    ("await start(x, x)", r"start\(\)"),
    ("await spawn(x, x)", r"spawn\(\)"),
    ("await continue_as_new(x)", r"continue_as_new\(\)"),
    ("await once()", r"activity once \(repeatable=False\)"),
    ("await queued()", r"activity queued \(on a queue\)"),
    ("async with transacted_receive(x, 1): pass", r"transacted_receive\(\)"),
    ("if x:\n            for y in x:\n                await holdfast.delay(x)", r"delay\(\)"),
]


@pytest.mark.parametrize(
    ("scope", "name"),
    [
        ("transaction()", "transaction"),
        ("holdfast.transaction(x) as y", "transaction"),
        ("no_persist()", "no_persist"),
        ("compensable(), no_persist(), compensable()", "no_persist"),
        ("transacted_receive(x, 1) as y", "transacted_receive"),
    ],
)
@pytest.mark.parametrize(("statement", "what"), INSIDE)
def test_what_waits_or_persists_is_refused_inside_of_a_scope(scope: str, name: str, statement: str, what: str) -> None:
    source = scoped(scope, statement)
    with pytest.raises(CompileError, match=rf"{what} inside {name}\(\)\. Await it before the scope") as caught:
        compile_workflow(define(source, **NAMES), name="w")
    assert caught.value.line == 2 + statement.count("\n") + 1


@pytest.mark.parametrize("scope", ["transaction()", "transacted_receive(x, 1)"])
def test_a_compensable_scope_cannot_be_opened_inside_of_a_transaction(scope: str) -> None:
    for source in (scoped(scope, "async with compensable(): pass"), scoped(f"{scope}, compensable()", "pass")):
        with pytest.raises(CompileError, match=r"compensable\(\) inside trans\w+\(\)\. Put the transaction inside"):
            compile_workflow(define(source, **NAMES), name="w")


def test_a_transaction_cannot_be_opened_where_nothing_is_to_be_persisted() -> None:
    with pytest.raises(CompileError, match=r"transaction\(\) inside no_persist\(\)\. Its end is a persistence point"):
        compile_workflow(define(scoped("no_persist()", "async with transaction(): pass"), **NAMES), name="w")


FINE = [
    scoped("transaction()", "await plain(); await run(x, x); await send(x); await defer(x)"),
    scoped("no_persist()", "async with compensable() as c: await plain()"),
    scoped("compensable()", "async with transaction(), transaction(), no_persist(): await plain()"),
    scoped("compensable() as c", "await receive(x, 1); await checkpoint(); await once()"),
    "async def w(x):\n    async with transaction(): await plain()\n    await delay(x)",
    scoped("transaction()", "delay = plain\n        await delay()"),
    scoped("transaction()", "late = delay(x)"),
]


@pytest.mark.parametrize("source", FINE)
def test_other_things_may_stand_inside(source: str) -> None:
    assert compile_workflow(define(source, **NAMES), name="w").steps


@pytest.mark.parametrize(
    "source",
    [
        scoped("transaction", "pass"),
        scoped("x", "pass"),
        scoped("plain()", "pass"),
        scoped("transaction(), x", "pass"),
        "async def w(transaction):\n    async with transaction(): pass",
        "async def w(x):\n    import holdfast\n    async with holdfast.transaction(): pass",
        scoped("(transaction() if x else no_persist())", "pass"),
    ],
)
def test_only_scopes_called_by_a_global_name_can_be_opened(source: str) -> None:
    with pytest.raises(CompileError, match=r"async with takes transaction\(\)") as caught:
        compile_workflow(define(source, **NAMES), name="w")
    assert caught.value.line == source.count("\n", 0, source.index("async with")) + 1
