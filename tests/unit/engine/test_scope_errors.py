"""What makes no sense inside a scope is refused where it is reached, if it was hidden by a routine or a helper.

The error names it, with its line and what to write instead.
"""

import inspect
from datetime import timedelta

import pytest

from holdfast import (
    App,
    Message,
    ScopeError,
    checkpoint,
    compensable,
    continue_as_new,
    delay,
    first_of,
    gather,
    no_persist,
    receive,
    routine,
    run,
    spawn,
    start,
    suspend,
    transacted_receive,
    transaction,
)
from holdfast.processor.language.awaitables import RoutineCall
from holdfast.testing import Simulation

app = App("strays")


class Begun(Message, correlation="key"):
    key: str


class Transacted(Begun): ...


class Held(Begun): ...


class Ran(Begun): ...


class Inner(Begun): ...


class Other(Begun): ...


class Came(Begun): ...


@app.activity
async def work() -> None: ...


@app.activity(repeatable=False)
async def pay() -> None: ...


@app.activity(persist_on_close=True)
async def close() -> None: ...


@app.activity(queue="printers")
async def print_out() -> None: ...


@app.workflow(start=Other, persistence="in_memory")
async def other(begun: Other) -> str:
    return "other"


@routine
async def stray(what: str) -> None:
    match what:
        case "receive":
            await receive(Came, what)
        case "delay":
            await delay(timedelta(1))
        case "first_of":
            await first_of(came=receive(Came, what))
        case "gather":
            await gather(work(), receive(Came, what))
        case "checkpoint":
            await checkpoint()
        case "suspend":
            await suspend("for a while")
        case "start":
            await start(other, Other(key=what))
        case "spawn":
            await spawn(other, Other(key=what))
        case "continue_as_new":
            await continue_as_new(Transacted(key=what))
        case "pay":
            await pay()
        case "print_out":
            await print_out()
        case "transacted_receive":
            async with transacted_receive(Came, what):
                await work()
        case "transaction":
            async with transaction():
                await work()
        case "compensable":
            async with compensable():
                await work()
        case "no_persist":
            async with no_persist():
                await work()
        case "close":
            await close()
        case "run":
            await run(other, Other(key=f"{what} other"))


@app.workflow(start=Transacted)
async def transacted(begun: Transacted) -> str:
    try:
        async with transaction():
            await stray(begun.key)
    except ScopeError as error:
        return str(error)
    return "fine"


@app.workflow(start=Held)
async def held(begun: Held) -> str:
    try:
        async with no_persist():
            await stray(begun.key)
    except ScopeError as error:
        return str(error)
    return "fine"


def helped(begun: Inner) -> RoutineCall[None]:
    """Call the routine where the check of the app does not see it."""
    return stray(begun.key)


@app.workflow(start=Inner, persistence="in_memory")
async def inner(begun: Inner) -> str:
    await helped(begun)
    return "fine"


@app.workflow(start=Ran)
async def ran(begun: Ran) -> str:
    try:
        return await run(inner, Inner(key=begun.key))
    except ScopeError as error:
        return str(error)


WAITS = ("receive", "delay", "first_of", "suspend")
COMMITS = {
    **{name: f"{name}()" for name in ("checkpoint", "start", "spawn", "continue_as_new", "transacted_receive")},
    "pay": "pay(), which is not repeatable,",
}
REFUSED = {
    **{name: f"{name}()" for name in WAITS},
    "gather": "receive()",
    "print_out": "print_out(), which is on a queue,",
    **COMMITS,
}
PUT_OUTSIDE = "Nothing is persisted in there, so nothing can be waited for or intended: put it before or after."
START = "Such a subflow has no transactions of its own: use start() to call it."


def line_of(what: str) -> int:
    """Return the line in which the routine awaits something."""
    lines, first = inspect.getsourcelines(stray.function)
    return first + next(number for number, line in enumerate(lines) if f'case "{what}"' in line) + 1


async def said(begun: Begun, workflow: str) -> str:
    """Return what the workflow says about what it awaited."""
    async with Simulation(app) as world:
        await world.deliver(begun)
        return str(world.instance(workflow=workflow).result)


@pytest.mark.parametrize("what", REFUSED)
async def test_what_waits_or_persists_is_refused_inside_of_a_transaction(what: str) -> None:
    refusal = f"{REFUSED[what]} inside a transaction (line {line_of(what)}). {PUT_OUTSIDE}"
    assert await said(Transacted(key=what), "transacted") == refusal


@pytest.mark.parametrize("what", REFUSED)
async def test_what_waits_or_persists_is_refused_where_nothing_is_to_be_persisted(what: str) -> None:
    refusal = f"{REFUSED[what]} inside no_persist() (line {line_of(what)}). {PUT_OUTSIDE}"
    assert await said(Held(key=what), "held") == refusal


@pytest.mark.parametrize("what", COMMITS)
async def test_what_takes_a_transaction_of_its_own_is_refused_in_a_subflow_that_is_run(what: str) -> None:
    refusal = f"{COMMITS[what]} inside a subflow that was called by run() (line {line_of(what)}). {START}"
    assert await said(Ran(key=what), "ran") == refusal


async def test_a_compensable_scope_is_refused_inside_of_a_transaction() -> None:
    refusal = f"compensable() inside a transaction (line {line_of('compensable')}). Put the transaction inside the"
    assert (await said(Transacted(key="compensable"), "transacted")).startswith(refusal)


async def test_a_transaction_is_refused_where_nothing_is_to_be_persisted() -> None:
    refusal = f"transaction() inside no_persist() (line {line_of('transaction')}). Its end is a persistence point"
    assert (await said(Held(key="transaction"), "held")).startswith(refusal)


@pytest.mark.parametrize(
    ("begun", "workflow"),
    [
        *((Transacted(key=key), "transacted") for key in ("transaction", "no_persist", "run", "close")),
        *((Held(key=key), "held") for key in ("compensable", "no_persist", "run", "close")),
        *((Ran(key=key), "ran") for key in ("transaction", "compensable", "no_persist", "run", "close", "print_out")),
    ],
    ids=lambda it: it if isinstance(it, str) else it.key,
)
async def test_other_things_may_be_reached_there(begun: Begun, workflow: str) -> None:
    assert await said(begun, workflow) == "fine"
