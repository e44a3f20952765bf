"""Of a message and a timer that both wait when an instance is looked at, the earlier one wins."""

from datetime import timedelta

import pytest

from holdfast.processor.engine.provider import Intake
from holdfast.processor.language.app import App
from holdfast.processor.language.awaitables import delay, first_of, receive
from holdfast.processor.testing.world import World
from holdfast.schemas.message import Message

app = App("timers")


class Asked(Message, correlation="key"):
    key: str


class Answered(Message, correlation="key"):
    key: str
    said: str


@app.workflow(start=Asked)
async def wait_an_hour(asked: Asked) -> str:
    outcome = await first_of(answer=receive(Answered, asked.key), late=delay(timedelta(hours=1)))
    return "late" if outcome.name == "late" else outcome.value.said


# Protocol: D11.
@pytest.mark.parametrize(
    ("seconds", "result"), [(3599, "yes"), (3600, "yes"), (3601, "late")], ids=["before", "tie", "after"]
)
async def test_the_earlier_of_arrival_and_due_time_wins_and_the_message_on_a_tie(seconds: int, result: str) -> None:
    world = World(app, lease=30, host_lock_renewal=10)
    host = await world.host()
    await host.deliver(Asked(key="k"), "m0")
    await host.die()
    await world.advance(seconds)
    await world.store.take_in([Intake(envelope=Answered(key="k", said="yes").envelope("m1"), verdict="buffered")])
    await world.advance(7200)
    successor = await world.host()
    await successor.detect()
    assert world.state.result == result


async def test_of_several_messages_the_first_in_the_inbox_wins() -> None:
    world = World(app, lease=30, host_lock_renewal=10)
    host = await world.host()
    await host.deliver(Asked(key="k"), "m0")
    await host.die()
    for number, said in enumerate(("first", "second"), start=1):
        envelope = Answered(key="k", said=said).envelope(f"m{number}")
        await world.store.take_in([Intake(envelope=envelope, verdict="buffered")])
    await world.advance(60)
    successor = await world.host()
    await successor.detect()
    assert world.state.result == "first"
    assert world.verdict("m2") == ("rejected", "completed")
