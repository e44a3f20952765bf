"""A host that dies at any one of its calls that commit, before or after it; rows D1 to D11 of the protocol."""

from datetime import timedelta

from holdfast.processor.language.app import App
from holdfast.processor.language.awaitables import checkpoint, delay, receive, send
from holdfast.schemas.message import Message
from holdfast.testing import Simulation, crash_prover

app = App("mortal")


class Placed(Message, correlation="key"):
    key: str


class Paid(Message, correlation="key"):
    key: str
    number: int = 0


class Early(Message, correlation="key"):
    key: str


class Shipped(Message, correlation="key"):
    key: str


@app.activity
async def work() -> None:
    """Do nothing."""


@app.workflow(start=Placed)
async def order(start: Placed) -> list[int]:
    await work()
    numbers: list[int] = []
    while len(numbers) < 3:
        paid = await receive(Paid, start.key)
        numbers.append(paid.number)
        await work()
        await send(Shipped(key=start.key))
        await checkpoint()
    await receive(Early, start.key)
    await delay(timedelta(seconds=3))
    await work()
    return numbers


MESSAGES: tuple[Message, ...] = (
    Placed(key="k"),
    Early(key="k"),
    Paid(key="k", number=1),
    Paid(key="k", number=2),
    Paid(key="k", number=3),
)


async def one_order(world: Simulation) -> None:
    deliveries = [await world.deliver(message, rest=False) for message in MESSAGES]
    await world.advance(10)
    assert world.instance().result == [1, 2, 3]
    assert [world.verdict(delivery) for delivery in deliveries] == ["applied"] * 5
    assert all(delivery.is_acked for delivery in deliveries)
    assert len(world.sent(Shipped)) == 3


# Protocol: D1, D2, D3, D5, D7, D8, D9, D10, D11.
async def test_another_host_finishes_what_a_dead_one_began() -> None:
    await crash_prover(app, one_order)
