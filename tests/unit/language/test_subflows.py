"""Subflows: what a call of one is, and what the app finds wrong with it."""

import inspect
import re
from collections.abc import Callable
from typing import Any

import pytest

from holdfast import AppError, Message, checkpoint, continue_as_new, gather, receive, routine, run, spawn, start
from holdfast.processor.language.app import App
from holdfast.processor.language.awaitables import ContinueAsNew, SubflowCall
from holdfast.processor.language.scopes import compensable, no_persist, transacted_receive, transaction

app = App("parents")


class Asked(Message, correlation="key"):
    key: str


class Begun(Message, correlation="key"):
    key: str


class Answered(Message, correlation="key"):
    key: str


class Late(Message, correlation="key"):
    key: str


@app.workflow(start=Asked, name="the child", persistence="in_memory")
async def child(asked: Asked) -> int:
    answered = await receive(Answered, asked.key)
    return len(answered.key)


async def no_workflow(asked: Asked) -> None: ...


def test_a_call_is_data() -> None:
    asked = Asked(key="k")
    assert run(child, asked) == SubflowCall("the child", asked, "run")
    assert start(child, asked) == SubflowCall("the child", asked, "start")
    assert spawn(child, asked) == SubflowCall("the child", asked, "spawn")
    assert continue_as_new(asked) == ContinueAsNew(asked)


@pytest.mark.parametrize("call", [run, start, spawn])
def test_what_is_no_workflow_or_not_its_message_is_refused(call: Callable[..., Any]) -> None:
    with pytest.raises(AppError, match=rf"{call.__name__}\(\) takes a workflow, the function below @app.workflow"):
        call(no_workflow, Asked(key="k"))
    with pytest.raises(TypeError, match="workflow the child starts with a Asked"):
        call(child, Begun(key="k"))
    with pytest.raises(TypeError, match="takes the message"):
        continue_as_new("k")  # type: ignore[arg-type]


def test_run_and_start_can_be_gathered_and_spawn_cannot() -> None:
    asked = Asked(key="k")
    gather(run(child, asked), start(child, asked))
    with pytest.raises(TypeError, match=r"a run\(\) or start\(\)"):
        gather(spawn(child, asked))


async def runs_child(begun: Begun) -> int:
    first, _ = await gather(run(child, Asked(key="1")), start(child, Asked(key="2")))
    return first


@routine
async def persists() -> None:
    await checkpoint()


async def starts(asked: Asked) -> None:
    await start(child, asked)


async def spawns(asked: Asked) -> None:
    await spawn(child, asked)


async def goes_on(asked: Asked) -> None:
    await continue_as_new(asked)


async def receives(asked: Asked) -> None:
    async with transacted_receive(Late, asked.key):
        pass


async def checkpoints(asked: Asked) -> None:
    await persists()


@app.activity(repeatable=False)
async def pay() -> None: ...


async def pays(asked: Asked) -> None:
    await pay()


inner: Any = None


async def runs_inner(begun: Begun) -> None:
    await run(inner, Asked(key="k"))


def two(monkeypatch: pytest.MonkeyPatch, function: Callable[[Asked], Any], persistence: Any = "in_memory") -> App:
    app = App("shop")
    monkeypatch.setitem(globals(), "inner", app.workflow(start=Asked, name="inner", persistence=persistence)(function))
    monkeypatch.setitem(globals(), "child", app.workflow(start=Late, name="late")(late))
    app.workflow(start=Begun)(runs_inner)
    return app


async def late(late: Late) -> None: ...


def line_of(function: Any, text: str) -> int:
    lines, first = inspect.getsourcelines(function)
    return first + next(number for number, line in enumerate(lines) if text in line)


def test_a_workflow_that_persists_by_itself_cannot_be_run(monkeypatch: pytest.MonkeyPatch) -> None:
    shop = two(monkeypatch, no_persistence_of_its_own, persistence="regular")
    place = rf"{__file__}:{line_of(runs_inner, 'run(inner')}"
    with pytest.raises(
        AppError, match=rf"{place}: workflow runs_inner runs inner, which persists .* start\(\) it instead"
    ):
        shop.check()


async def no_persistence_of_its_own(asked: Asked) -> None: ...


@pytest.mark.parametrize(
    ("function", "at", "used"),
    [
        (starts, starts, "start()"),
        (spawns, spawns, "spawn()"),
        (goes_on, goes_on, "continue_as_new()"),
        (receives, receives, "transacted_receive()"),
        (checkpoints, persists.function, "checkpoint()"),
        (pays, pays, "activity pay"),
    ],
)
def test_what_is_run_has_no_transactions_of_its_own(
    monkeypatch: pytest.MonkeyPatch, function: Any, at: Any, used: str
) -> None:
    place = f"{__file__}:{line_of(at, used.removeprefix('activity ').rstrip('()') + '(')}"
    shop = two(monkeypatch, function)
    shop.activities["pay"] = pay
    with pytest.raises(AppError, match=re.escape(f"uses {used}, but runs_inner runs inner in its own")) as caught:
        shop.check()
    assert str(caught.value).startswith(place)


def test_what_is_in_memory_and_waits_can_be_run_and_its_waits_are_the_parents() -> None:
    app.workflow(start=Begun)(runs_child)
    app.check()
    assert app.workflows["runs_child"].receives == {"Begun", "Answered"}
    assert app.workflows["the child"].receives == {"Asked", "Answered"}


def test_a_workflow_of_another_app_is_no_subflow() -> None:
    other = App("other")
    other.workflow(start=Begun)(runs_child)
    with pytest.raises(AppError, match="runs_child uses workflow 'the child' of another app than other"):
        other.check()


async def waits_in_a_transaction(begun: Begun) -> None:
    async with transacted_receive(Answered, begun.key) as answered, no_persist():
        print(answered)  # noqa: T201 - it is never run


@routine
async def undoes() -> None:
    async with compensable():
        pass


@routine
async def transacts() -> None:
    async with transaction():
        pass


@app.activity(persist_on_close=True)
async def closes() -> None: ...


async def with_undo(begun: Begun) -> None:
    await undoes()


async def with_transaction(begun: Begun) -> None:
    await transacts()


async def with_closing(begun: Begun) -> None:
    await closes()


@pytest.mark.parametrize(
    ("function", "needs"),
    [
        (waits_in_a_transaction, True),
        (with_undo, True),
        (with_transaction, True),
        (with_closing, True),
        (runs_child, False),
    ],
)
def test_a_workflow_tells_whether_it_needs_a_store(function: Any, needs: bool) -> None:  # noqa: FBT001 - given by pytest
    shop = App("shop")
    shop.workflow(start=Begun, name="w")(function)
    assert shop.workflows["w"].needs_persistence is needs


def test_the_message_of_a_transacted_receive_is_one_that_the_workflow_receives() -> None:
    shop = App("shop")
    shop.workflow(start=Begun)(waits_in_a_transaction)
    assert shop.workflows["waits_in_a_transaction"].receives == {"Begun", "Answered"}
    assert {"Begun", "Answered"} <= set(shop.messages)


class Impostor(Message, correlation="key", type="holdfast.Impostor"):
    key: str


async def takes_an_impostor(impostor: Impostor) -> None: ...


def test_names_of_holdfasts_own_are_reserved() -> None:
    shop = App("shop")
    shop.workflow(start=Impostor)(takes_an_impostor)
    with pytest.raises(AppError, match=r"'holdfast\.Impostor': names that begin with 'holdfast\.' are Holdfast's own"):
        shop.check()
    with pytest.raises(AppError, match=r"routine 'holdfast\.mine': names that begin"):
        routine(name="holdfast.mine")(no_workflow)
