"""Answers to who sent a message, on simulated hosts."""

from datetime import timedelta

from holdfast import App, Message, ReplyImpossible, delay, receive, reply, transacted_receive
from holdfast.testing import Simulation

app = App("replies")


class Asked(Message, correlation="key"):
    key: str


class AskedAgain(Message, correlation="question"):
    question: str


class Answer(Message):
    text: str


class Receipt(Message, correlation="number"):
    number: int


@app.workflow(start=Asked)
async def answerer(asked: Asked) -> str:
    try:
        await reply(Answer(text="yes"))
    except ReplyImpossible:
        return "nobody asked"
    again = await receive(AskedAgain, f"{asked.key}, again")
    await reply(Answer(text=again.question))
    await reply(Receipt(number=7))
    return "answered"


class Pondered(Message, correlation="key"):
    key: str


@app.workflow(start=Pondered)
async def ponderer(pondered: Pondered) -> None:
    await delay(timedelta(hours=1))
    await reply(Answer(text=pondered.key))


class Tried(Message, correlation="key"):
    key: str


@app.activity
async def fail() -> None:
    raise ValueError


@app.workflow(start=Tried)
async def trier(tried: Tried) -> None:
    try:
        async with transacted_receive(AskedAgain, tried.key):
            await fail()
    except ValueError:
        await reply(Answer(text="not done"))


async def test_an_answer_does_not_go_to_the_sender_of_a_message_that_was_not_taken() -> None:
    async with Simulation(app) as world:
        (host,) = world.hosts
        host.put(Tried(key="k").envelope("first", reply_to="one"))
        await world.rest()
        host.put(AskedAgain(question="k").envelope("second", reply_to="two"))
        await world.rest()
        assert [each.routing_key for each in world.outbox] == ["one"]


async def test_an_answer_goes_to_the_queue_that_its_asker_named_under_the_key_of_the_question() -> None:
    async with Simulation(app) as world:
        (host,) = world.hosts
        host.put(Asked(key="k").envelope("first", reply_to="one"))
        await world.rest()
        host.put(AskedAgain(question="k, again").envelope("second", reply_to="two"))
        await world.rest()
        assert [(each.exchange, each.routing_key, each.type, each.key) for each in world.outbox] == [
            ("", "one", "Answer", "k"),
            ("", "two", "Answer", "k, again"),
            ("", "two", "Receipt", "7"),
        ]
        assert world.instance("k").result == "answered"


async def test_who_asked_is_known_after_a_crash() -> None:
    async with Simulation(app) as world:
        (host,) = world.hosts
        host.put(Pondered(key="k").envelope("first", reply_to="one"))
        await world.rest()
        await world.crash()
        await world.start()
        await world.advance(timedelta(hours=1))
        assert [(each.routing_key, each.key) for each in world.outbox] == [("one", "k")]


async def test_only_who_asked_last_is_answered() -> None:
    async with Simulation(app) as world:
        (host,) = world.hosts
        host.put(Asked(key="k").envelope("first", reply_to="one"))
        await world.rest()
        await world.deliver(AskedAgain(question="k, again"))
        assert world.instance("k").suspension_exception_name == "holdfast.schemas.errors.ReplyImpossible"
        assert [each.routing_key for each in world.outbox] == ["one"]


async def test_a_message_that_names_no_queue_cannot_be_answered() -> None:
    async with Simulation(app) as world:
        await world.deliver(Asked(key="k"))
        assert world.instance("k").result == "nobody asked"
        assert world.outbox == []
