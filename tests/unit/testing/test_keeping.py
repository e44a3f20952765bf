"""Workflows that say how their instances are kept, in memory and under the crash prover."""

from holdfast import App, Message, receive, start
from holdfast.testing import Simulation, crash_prover

app = App("kept")


class Asked(Message, correlation="key"):
    key: str


class Inner(Message, correlation="key"):
    key: str


class Again(Message, correlation="key"):
    key: str


class Answered(Message, correlation="key"):
    key: str


@app.workflow(start=Asked, on_completion="delete", state_encoding="gzip")
async def ask(asked: Asked) -> str:
    await receive(Answered, asked.key)
    return await start(inner, Inner(key=asked.key))


@app.workflow(start=Inner, on_completion="delete")
async def inner(message: Inner) -> str:
    return f"inner {message.key}"


@app.workflow(start=Again, reuse_key=True)
async def again(message: Again) -> str:
    await receive(Answered, message.key)
    return message.key


async def scenario(world: Simulation) -> None:
    await world.deliver(Asked(key="a"))
    await world.deliver(Answered(key="a"))
    await world.deliver(Again(key="b"))
    await world.deliver(Again(key="b"))
    await world.deliver(Answered(key="b"))


async def test_what_was_deleted_as_it_closed_can_still_be_looked_at() -> None:
    async with Simulation(app) as world:
        await scenario(world)
        assert world.instance("a", workflow="ask").result == "inner a"
        assert [each.outcome for each in world.instances if each.workflow == "again"] == ["completed", None]
        assert [row.registration.workflow for row in world.tables.instances.values()] == ["again", "again"]


async def test_it_comes_to_the_same_wherever_a_host_dies() -> None:
    report = await crash_prover(app, scenario)
    assert len(report.runs) > 20
