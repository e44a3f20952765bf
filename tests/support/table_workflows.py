"""The workflows of the tables of docs/transactions.md, to be loaded as ``in_memory`` and as ``regular``.

Activities note in ``ran`` that they ran, so that a test can tell what ran twice.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from holdfast import (
    App,
    Message,
    Transaction,
    checkpoint,
    compensable,
    defer,
    no_persist,
    receive,
    run,
    send,
    spawn,
    start,
    suspend,
    transacted_receive,
    transaction,
)
from holdfast.processor.language.options import Persistence

MODE: Persistence = "regular" if __name__.endswith("regular") else "in_memory"

app = App(f"tables_{MODE}")
ran: list[str] = []


def load(mode: Persistence) -> ModuleType:
    """Return this file as a module of its own, whose workflows have that persistence mode."""
    name = f"{__name__}_{mode}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, Path(__file__))
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return sys.modules[name]


class Begun(Message, correlation="key"):
    key: str


class Sent(Begun): ...


class Came(Begun): ...


@app.activity
def count(note: str) -> int:
    ran.append(note)
    return len(note)


@app.activity
async def think(note: str) -> str:
    ran.append(note)
    return note


@app.activity
async def fail(note: str) -> None:
    ran.append(note)
    raise ConnectionError(note)


@app.activity
async def book(tx: Transaction, note: str) -> None:
    ran.append(note)
    await tx.execute("insert into bookings values (%s, pg_current_xact_id())", (note,))


@app.activity(persist_on_close=True)
async def think_hard(note: str) -> str:
    ran.append(note)
    return note


@app.activity(repeatable=False)
async def pay(note: str) -> str:
    ran.append(note)
    return note


@app.activity(queue="mail")
async def mail(note: str) -> str:
    return note


class Synchronous(Begun): ...


@app.workflow(start=Synchronous, persistence=MODE)
async def synchronous(begun: Synchronous) -> None:
    await count("1")
    await count("2")
    await count("3")


class Asynchronous(Begun): ...


@app.workflow(start=Asynchronous, persistence=MODE)
async def asynchronous(begun: Asynchronous) -> None:
    await think("1")
    await think("2")
    await think("3")


class InnerBegun(Begun): ...


@app.workflow(start=InnerBegun, persistence="in_memory")
async def inner(begun: InnerBegun) -> str:
    await think("inner 1")
    return await think("inner 2")


class OuterBegun(Begun): ...


@app.workflow(start=OuterBegun, persistence=MODE)
async def runs(begun: OuterBegun) -> str:
    await think("1")
    result = await run(inner, InnerBegun(key=begun.key))
    await think("2")
    return result


class ChildBegun(Begun): ...


@app.workflow(start=ChildBegun, persistence=MODE)
async def child(begun: ChildBegun) -> str:
    await think("child 1")
    return await think("child 2")


class StarterBegun(Begun): ...


@app.workflow(start=StarterBegun, persistence=MODE)
async def starts(begun: StarterBegun) -> str:
    await think("1")
    result = await start(child, ChildBegun(key=begun.key))
    await think("2")
    return result


class SpawnerBegun(Begun): ...


@app.workflow(start=SpawnerBegun, persistence=MODE)
async def spawns(begun: SpawnerBegun) -> None:
    await think("1")
    await spawn(child, ChildBegun(key=begun.key))
    await think("2")


class Halted(Begun): ...


@app.workflow(start=Halted, persistence=MODE)
async def halts(begun: Halted) -> None:
    await think("1")
    await suspend("have a look")
    await think("2")


class Terminated(Begun): ...


@app.workflow(start=Terminated, persistence=MODE, on_unhandled="terminate")
async def terminates(begun: Terminated) -> None:
    await think("1")
    await fail("2")


class Cancelled(Begun): ...


@app.workflow(start=Cancelled, persistence=MODE, on_unhandled="cancel")
async def cancels(begun: Cancelled) -> None:
    async with compensable() as thought:
        await think("1")
        thought.undo(think, "not 1")
    await fail("2")


class Abandoned(Begun): ...


@app.workflow(start=Abandoned, persistence=MODE, on_unhandled="abandon")
async def abandons(begun: Abandoned) -> None:
    await think("1")
    await checkpoint()
    await think("2")
    await fail("3")


class Stopped(Begun): ...


@app.workflow(start=Stopped, persistence=MODE, on_unhandled="abandon_and_suspend")
async def stops(begun: Stopped) -> None:
    await think("1")
    await checkpoint()
    await think("2")
    await fail("3")


class Checked(Begun): ...


@app.workflow(start=Checked, persistence=MODE)
async def checks(begun: Checked) -> None:
    await think("1")
    await checkpoint()
    await think("2")
    await think("3")


class Paid(Begun): ...


@app.workflow(start=Paid, persistence=MODE)
async def pays(begun: Paid) -> None:
    await think("1")
    await pay("2")
    await think("3")


class Mailed(Begun): ...


@app.workflow(start=Mailed, persistence=MODE)
async def mails(begun: Mailed) -> None:
    await think("1")
    await mail("2")
    await think("3")


class Waited(Begun): ...


@app.workflow(start=Waited, persistence=MODE)
async def waits(begun: Waited) -> None:
    await think("1")
    await receive(Came, begun.key)
    await think("2")
    await send(Sent(key=begun.key))
    await think("3")


class Closed(Begun): ...


@app.workflow(start=Closed, persistence=MODE)
async def persists_on_close(begun: Closed) -> None:
    await think("1")
    await think_hard("2")
    await think("3")


class Transacted(Begun): ...


@app.workflow(start=Transacted, persistence=MODE)
async def transacts(begun: Transacted) -> None:
    await think("1")
    async with transaction():
        await book("2")
        await think("3")
        await book("4")
    await think("5")


class TransactedAndFailed(Begun): ...


@app.workflow(start=TransactedAndFailed, persistence=MODE)
async def transacts_in_vain(begun: TransactedAndFailed) -> None:
    await book("1")
    try:
        async with transaction():
            await book("2")
            await send(Sent(key=begun.key))
            await fail("3")
    except ConnectionError:
        await book("4")


class Received(Begun): ...


@app.workflow(start=Received, persistence=MODE)
async def receives(begun: Received) -> None:
    await think("1")
    async with transacted_receive(Came, begun.key) as came:
        await book(came.key)
        await think("2")
    await think("3")


class Held(Begun): ...


@app.workflow(start=Held, persistence=MODE)
async def holds(begun: Held) -> None:
    await think("1")
    async with no_persist():
        await think("2")
        await think("3")
    await think("4")


class Deferred(Begun): ...


@app.workflow(start=Deferred, persistence=MODE)
async def defers(begun: Deferred) -> None:
    await think("1")
    await defer(book("2"))
    await think("3")
    await think("4")
