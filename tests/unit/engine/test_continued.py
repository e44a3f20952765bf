"""Instances that go on as new ones, on simulated hosts."""

from collections.abc import Awaitable, Callable

import pytest

from holdfast import (
    App,
    Message,
    SubflowFailed,
    compensable,
    continue_as_new,
    gather,
    receive,
    reply,
    routine,
    start,
)
from holdfast.testing import Simulation, crash_prover

app = App("continued")
said: list[str] = []


@pytest.fixture(autouse=True)
def _silence() -> None:
    said.clear()


class Step(Message, correlation="key"):
    key: str


class Note(Step): ...


@app.activity
async def say(what: str) -> None:
    said.append(what)


class Counted(Step):
    number: int
    other: str = ""


@app.workflow(start=Counted, persistence="in_memory")
async def counter(counted: Counted) -> int:
    try:
        await say(f"{counted.key} {counted.number}")
        await receive(Note, counted.key)
        if counted.number < 3:
            await count_on(counted)
    finally:
        await say("finally")
    return counted.number


@routine
async def count_on(counted: Counted) -> None:
    await continue_as_new(Counted(key=counted.other or counted.key, number=counted.number + 1))


class Compensated(Step):
    is_last: bool = False


@app.workflow(start=Compensated, persistence="in_memory")
async def compensated(begun: Compensated) -> None:
    async with compensable() as first:
        first.confirm(say, "confirmed 1")
        first.undo(say, "undone 1")
    async with compensable() as second:
        second.confirm(say, "confirmed 2")
        second.undo(say, "undone 2")
        if not begun.is_last:
            await continue_as_new(Compensated(key=begun.key, is_last=True))
        await receive(Note, begun.key)


class Gathered(Step):
    is_last: bool = False


@routine
async def wait_for(key: str) -> None:
    try:
        await receive(Note, key)
    finally:
        await say("cleaned up")


@routine
async def renew(key: str) -> None:
    await receive(Note, key)
    await continue_as_new(Gathered(key=key, is_last=True))


@app.workflow(start=Gathered, persistence="in_memory")
async def gatherer(gathered: Gathered) -> None:
    if not gathered.is_last:
        await gather(start(counter, Counted(key="n", number=3)), wait_for("w"), renew(gathered.key))


class Asked(Step): ...


class Answer(Step): ...


@app.workflow(start=Asked, persistence="in_memory")
async def answerer(asked: Asked) -> None:
    if asked.key == "first":
        await continue_as_new(Asked(key="second"))
    await reply(Answer(key=asked.key))


class Mistaken(Step): ...


@app.workflow(start=Mistaken, persistence="in_memory")
async def mistaken(begun: Mistaken) -> str:
    try:
        await continue_as_new(Note(key=begun.key))
    except TypeError as error:
        return str(error)


class Awaited(Step): ...


@app.workflow(start=Awaited, persistence="in_memory")
async def awaiter(awaited: Awaited) -> str:
    try:
        return f"counted to {await start(counter, Counted(key='n', number=1))}"
    except SubflowFailed as error:
        return str(error)


async def test_an_instance_goes_on_as_a_new_one_with_a_fresh_stream_and_the_mailbox() -> None:
    async with Simulation(app) as world:
        await world.deliver(Counted(key="n", number=1))
        for number in (1, 2, 3):
            await world.deliver(Note(key="n"), message_id=f"n{number}")
        assert [(each.outcome, each.result) for each in world.instances] == [
            ("completed", None),
            ("completed", None),
            ("completed", 3),
        ]
        one, two, _ = world.instances
        assert [type(recorded.event).__name__ for recorded in await world.history(one)][-5:] == [
            "Persisted",
            "MessageReceived",
            "ActivityCompleted",
            "InstanceContinued",
            "Persisted",
        ]
        assert (two.state.parent, two.state.subflow) == (str(one.instance_id), "continued")
        assert said == ["n 1", "finally", "n 2", "finally", "n 3", "finally"]


async def test_messages_that_came_too_early_for_the_first_are_there_for_the_next() -> None:
    async with Simulation(app) as world:
        await world.deliver(Counted(key="n", number=1), rest=False)
        for number in (1, 2, 3):
            await world.deliver(Note(key="n"), message_id=f"n{number}", rest=False)
        await world.rest()
        assert world.instances[-1].result == 3
        assert {world.verdict(delivery) for delivery in world.deliveries} == {"applied"}


async def test_the_last_of_those_that_a_subflow_went_on_as_answers_for_it() -> None:
    async with Simulation(app) as world:
        await world.deliver(Awaited(key="p"))
        for number in (1, 2, 3):
            assert world.instance("p").status == "idle"
            await world.deliver(Note(key="n"), message_id=f"n{number}")
        assert world.instance("p").result == "counted to 3"


async def test_a_command_for_a_subflow_reaches_the_instance_that_it_went_on_as() -> None:
    async with Simulation(app) as world:
        await world.deliver(Awaited(key="p"))
        await world.deliver(Note(key="n"))
        await world.command(world.instance("p"), "cancel")
        assert [each.outcome for each in world.instances] == ["cancelled", "completed", "cancelled"]


async def test_a_key_in_use_keeps_an_instance_from_going_on_under_it() -> None:
    async with Simulation(app) as world:
        await world.deliver(Counted(key="taken", number=1))
        await world.deliver(Counted(key="n", number=1, other="taken"))
        await world.deliver(Note(key="n"))
        found = world.instance("n")
        assert (found.suspension_exception_name, found.waits_for != []) == ("holdfast.schemas.errors.KeyInUse", True)


async def test_what_can_be_undone_is_confirmed_before_the_next_one_begins() -> None:
    async with Simulation(app) as world:
        await world.deliver(Compensated(key="c"))
        assert said == ["confirmed 1", "confirmed 2"]
        assert [each.outcome for each in world.instances] == ["completed", None]


async def test_the_other_branches_of_a_gather_end_first() -> None:
    async with Simulation(app) as world:
        await world.deliver(Gathered(key="g"))
        await world.deliver(Note(key="g"))
        assert said == ["n 3", "cleaned up", "finally"]
        assert [(each.workflow, each.outcome) for each in world.instances] == [
            ("gatherer", "completed"),
            ("counter", "cancelled"),
            ("gatherer", "completed"),
        ]


async def test_the_next_one_may_still_answer_the_sender() -> None:
    async with Simulation(app) as world:
        (host,) = world.hosts
        host.put(Asked(key="first").envelope("a", reply_to="waiting"))
        await world.rest()
        (answer,) = world.outbox
        assert (answer.exchange, answer.routing_key, answer.type) == ("", "waiting", "Answer")
        assert world.sent(Answer) == [Answer(key="second")]


async def test_an_instance_goes_on_only_from_its_own_kind_of_message() -> None:
    async with Simulation(app) as world:
        await world.deliver(Mistaken(key="m"))
        assert world.instance("m").result == "workflow mistaken starts with a Mistaken, not with Note(key='m')"


async def count_to_three(world: Simulation) -> None:
    await world.deliver(Awaited(key="p"))
    for _ in range(3):
        await world.deliver(Note(key="n"))


async def gather_and_renew(world: Simulation) -> None:
    await world.deliver(Gathered(key="g"))
    await world.deliver(Note(key="g"))


# Protocol: D14, I13.
@pytest.mark.parametrize("scenario", [count_to_three, gather_and_renew], ids=lambda s: s.__name__)
async def test_wherever_a_host_dies_an_instance_goes_on_once(
    scenario: Callable[[Simulation], Awaitable[None]],
) -> None:
    await crash_prover(app, scenario)
