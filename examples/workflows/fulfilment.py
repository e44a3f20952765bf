"""An order is picked and booked, waits two days for its payment, and is shipped; or it is given up."""

from datetime import timedelta
from decimal import Decimal

from holdfast import App, Message, Retry, Transaction, receive, send
from holdfast.testing import Simulation

app = App("fulfilment")


class Ordered(Message, correlation="order"):
    order: str
    items: list[str]


class Paid(Message, correlation="order"):
    order: str


class Shipped(Message, correlation="order"):
    order: str
    weight: Decimal


class GivenUp(Message, correlation="order"):
    order: str


# Any code, outside the database transaction. It is tried three times, for a minute each.
@app.activity(retry=Retry(attempts=3), timeout=timedelta(minutes=1))
async def pick(items: list[str]) -> list[str]:
    return [f"box of {item}" for item in items]


# A plain function runs in a thread.
@app.activity
def weigh(boxes: list[str]) -> Decimal:
    return Decimal(len(boxes)) / 2


# A function that takes a transaction: its SQL commits together with the state of the workflow, exactly once.
@app.activity
async def book(tx: Transaction, order: str, boxes: int) -> None:
    await tx.execute("insert into bookings (order_id, boxes) values (%s, %s)", (order, boxes))


@app.workflow(start=Ordered)
async def fulfil(ordered: Ordered) -> str:
    boxes = await pick(ordered.items)
    await book(ordered.order, len(boxes))
    try:
        await receive(Paid, ordered.order, timeout=timedelta(days=2))
    except TimeoutError:
        await send(GivenUp(order=ordered.order))
        return "given up"
    await send(Shipped(order=ordered.order, weight=await weigh(boxes)))
    return "shipped"


async def scenario(world: Simulation) -> None:
    await world.deliver(Ordered(order="A1", items=["tea", "salt"]))
    await world.deliver(Ordered(order="A2", items=["rice"]))
    await world.advance(timedelta(days=1))
    await world.deliver(Paid(order="A1"))
    await world.advance(timedelta(days=1))
    assert [world.instance(order).result for order in ("A1", "A2")] == ["shipped", "given up"]
    assert world.sent(Shipped) == [Shipped(order="A1", weight=Decimal(1))]
    assert world.sent(GivenUp) == [GivenUp(order="A2")]
