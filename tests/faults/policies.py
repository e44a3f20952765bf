"""One workflow for each thing that can become of an unhandled exception, and workflows that wait for them."""

import os
from pathlib import Path

from holdfast import (
    App,
    Message,
    Retry,
    Transaction,
    compensable,
    receive,
    routine,
    run,
    start,
)

app = App("policies")
FOLDER = Path(os.environ.get("POLICIES_FOLDER", "."))


class Suspends(Message, correlation="key"):
    key: str
    waits: bool = False


class Abandons(Message, correlation="key"):
    key: str
    waits: bool = False


class Cancels(Message, correlation="key"):
    key: str
    waits: bool = False


class Terminates(Message, correlation="key"):
    key: str
    waits: bool = False


class Went(Message, correlation="key"):
    key: str


class Starts(Message, correlation="key"):
    key: str
    policy: str


class Runs(Message, correlation="key"):
    key: str
    policy: str


@app.activity
async def record(tx: Transaction, key: str, step: str) -> None:
    await tx.execute("insert into records (key, step) values (%s, %s)", (key, step))


@app.activity(retry=Retry(attempts=1))
async def fail(key: str) -> None:
    if (FOLDER / "fails").exists():
        raise ValueError(key)


@routine
async def journey(key: str, *, waits: bool) -> None:
    async with compensable() as work:
        work.undo(record, key, "undone")
        if waits:
            await record(key, "first")
            await receive(Went, key)
        await record(key, "second")
        try:
            await fail(key)
        finally:
            await record(key, "finally")


@app.workflow(start=Suspends, persistence="in_memory", on_unhandled="abandon_and_suspend")
async def suspends(it: Suspends) -> str:
    await journey(it.key, waits=it.waits)
    return it.key


@app.workflow(start=Abandons, persistence="in_memory", on_unhandled="abandon")
async def abandons(it: Abandons) -> str:
    await journey(it.key, waits=it.waits)
    return it.key


@app.workflow(start=Cancels, persistence="in_memory", on_unhandled="cancel")
async def cancels(it: Cancels) -> str:
    await journey(it.key, waits=it.waits)
    return it.key


@app.workflow(start=Terminates, persistence="in_memory", on_unhandled="terminate")
async def terminates(it: Terminates) -> str:
    await journey(it.key, waits=it.waits)
    return it.key


@app.workflow(start=Starts, persistence="in_memory")
async def starts(it: Starts) -> str:
    try:
        if it.policy == "suspends":
            await start(suspends, Suspends(key=f"{it.key}-child"))
        elif it.policy == "abandons":
            await start(abandons, Abandons(key=f"{it.key}-child"))
        elif it.policy == "cancels":
            await start(cancels, Cancels(key=f"{it.key}-child"))
        else:
            await start(terminates, Terminates(key=f"{it.key}-child"))
    except ValueError as error:
        return type(error).__name__
    return "went well"


@app.workflow(start=Runs, persistence="in_memory")
async def runs(it: Runs) -> str:
    try:
        if it.policy == "suspends":
            await run(suspends, Suspends(key=f"{it.key}-child"))
        elif it.policy == "abandons":
            await run(abandons, Abandons(key=f"{it.key}-child"))
        elif it.policy == "cancels":
            await run(cancels, Cancels(key=f"{it.key}-child"))
        else:
            await run(terminates, Terminates(key=f"{it.key}-child"))
    except ValueError as error:
        return type(error).__name__
    return "went well"
