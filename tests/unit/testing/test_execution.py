"""A workflow without a persistence provider runs in one go, and is refused what it cannot do without one."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from holdfast import (
    App,
    Message,
    PersistenceRequired,
    Retry,
    Transaction,
    checkpoint,
    compensable,
    continue_as_new,
    defer,
    delay,
    first_of,
    gather,
    no_persist,
    receive,
    reply,
    routine,
    run,
    send,
    spawn,
    suspend,
    transacted_receive,
    transaction,
)
from holdfast.schemas.errors import AppError
from holdfast.testing import execute

app = App("fleeting")


class Asked(Message, correlation="key"):
    key: str
    fails: int = 0


class Answered(Message, correlation="key"):
    key: str
    text: str = ""


class Waited(Message, correlation="key"):
    key: str


class Wanted(Message, correlation="key"):
    key: str
    what: str


class Greeted(Message, correlation="key"):
    key: str


class Both(Message, correlation="key"):
    key: str


class Shaken(Exception):
    """Not yet."""


@app.activity(retry=Retry(attempts=3, delay=timedelta(seconds=4), factor=1))
async def fetch(key: str, fails: int) -> str:
    if len(seen) < fails:
        seen.append(key)
        raise Shaken(key)
    return key.upper()


@app.activity
def shout(text: str) -> str:
    return f"{text}!"


@app.activity
async def forget() -> None:
    """Do nothing."""


@app.activity
async def write(tx: Transaction) -> None:
    await tx.execute("insert into nothing default values")


seen: list[str] = []


@pytest.fixture(autouse=True)
def _nothing_seen() -> None:
    seen.clear()


@routine
async def greet(name: str) -> str:
    return await shout(f"hello {name}")


@app.workflow(start=Asked)
async def ask(asked: Asked) -> list[str]:
    found = await fetch(asked.key, asked.fails)
    async with no_persist():
        greetings = await gather(greet(found), shout("bye"))
    await checkpoint()
    await send(Answered(key=asked.key, text="sent"))
    await reply(Answered(key=asked.key, text="replied"))
    answered = await receive(Answered, asked.key)
    return [*greetings, answered.text]


@app.workflow(start=Waited)
async def wait(waited: Waited) -> list[str]:
    names = []
    try:
        await receive(Answered, waited.key, timeout=timedelta(hours=1))
    except TimeoutError:
        names.append("timeout")
    for _ in range(2):
        came = await first_of(
            answer=receive(Answered, f"{waited.key}/2"), far=delay(timedelta(days=9)), near=delay(timedelta(days=1))
        )
        names.append(came.name)
    return names


@app.workflow(start=Greeted, persistence="in_memory")
async def welcome(greeted: Greeted) -> str:
    return await shout(greeted.key)


@app.workflow(start=Both)
async def both(start: Both) -> list[str]:
    one = await run(welcome, Greeted(key=start.key))
    return [one, *await gather(run(welcome, Greeted(key="left")), run(welcome, Greeted(key="right")))]


@app.workflow(start=Wanted)
async def want(wanted: Wanted) -> None:
    await forget()
    match wanted.what:
        case "record":
            await write()
        case "defer":
            await defer(write())
        case "suspend":
            await suspend("for a while")
        case "spawn":
            await spawn(wait, Waited(key="w"))
        case "continue":
            await continue_as_new(wanted)
        case "receive":
            await receive(Answered, wanted.key)


async def test_activities_routines_and_messages_need_no_provider() -> None:
    done = await execute(app, Asked(key="a"), received=[Answered(key="a", text="yes")])
    assert done.result == ["hello A!", "bye!", "yes"]
    assert done.sent == [Answered(key="a", text="sent"), Answered(key="a", text="replied")]
    assert [run.activity for run in done.activity_runs] == ["fetch", "shout", "shout"]


async def test_a_workflow_runs_others_as_parts_of_itself() -> None:
    done = await execute(app, Both(key="a"))
    assert done.result == ["a!", "left!", "right!"]


async def test_time_passes_at_once() -> None:
    done = await execute(app, Waited(key="a"), received=[Answered(key="a/2")])
    assert done.result == ["timeout", "answer", "near"]
    assert done.ended == datetime(2026, 1, 2, 1, tzinfo=UTC)


async def test_an_activity_is_tried_again_and_its_error_is_the_workflows() -> None:
    done = await execute(app, Asked(key="a", fails=2), received=[Answered(key="a")])
    assert [run.attempt for run in done.activity_runs[:3]] == [1, 2, 3]
    seen.clear()
    with pytest.raises(Shaken):
        await execute(app, Asked(key="a", fails=9))


async def test_functions_stand_in_for_activities() -> None:
    done = await execute(
        app, Asked(key="a"), received=[Answered(key="a")], stand_ins={fetch: lambda key, fails: "b", shout: str.title}
    )
    assert done.result[:2] == ["Hello B", "Bye"]


@pytest.mark.parametrize(
    ("what", "name"),
    [
        ("record", "record activity write"),
        ("defer", r"defer\(\)"),
        ("suspend", r"suspend\(\)"),
        ("spawn", r"spawn\(\)"),
        ("continue", r"continue_as_new\(\)"),
    ],
)
async def test_what_needs_a_store_is_refused_where_it_is_awaited(what: str, name: str) -> None:
    with pytest.raises(PersistenceRequired, match=rf"line \d+: {name} needs a persistence provider"):
        await execute(app, Wanted(key="a", what=what))


async def test_a_message_that_does_not_come_is_named() -> None:
    with pytest.raises(AppError, match="waits for Answered 'a', which is not among"):
        await execute(app, Wanted(key="a", what="receive"))


async def test_a_message_that_starts_nothing_is_an_error() -> None:
    with pytest.raises(AppError, match="no workflow of app fleeting starts with Answered"):
        await execute(app, Answered(key="a"))


needy = App("needy")


class Transacted(Message, correlation="key"):
    key: str


class Compensated(Message, correlation="key"):
    key: str


class Awaited(Message, correlation="key"):
    key: str


class Routed(Message, correlation="key"):
    key: str


@needy.activity
async def begin() -> None:
    seen.append("begun")


@needy.activity(persist_on_close=True)
async def finish() -> None: ...


class Finished(Message, correlation="key"):
    key: str


@needy.workflow(start=Finished)
async def finished(start: Finished) -> None:
    await begin()
    await finish()


@needy.workflow(start=Transacted)
async def transacted(start: Transacted) -> None:
    await begin()
    async with transaction():
        await begin()


@needy.workflow(start=Compensated)
async def compensated(start: Compensated) -> None:
    await begin()
    async with compensable():
        await begin()


@needy.workflow(start=Awaited)
async def awaited(start: Awaited) -> None:
    await begin()
    async with transacted_receive(Answered, start.key):
        await begin()


@routine
async def transact() -> None:
    async with transaction():
        await begin()


@needy.workflow(start=Routed)
async def routed(start: Routed) -> None:
    await begin()
    await transact()


@pytest.mark.parametrize("kind", [Transacted, Compensated, Awaited, Routed, Finished])
def test_a_workflow_that_needs_a_provider_is_refused_before_its_first_activity(kind: Callable[..., Message]) -> None:
    with pytest.raises(PersistenceRequired, match="needs a persistence provider, and there is none"):
        asyncio.run(execute(needy, kind(key="a")))
    assert seen == []
