"""A bill is sent; after that there are reminders, one a week, until it is paid or the year ends."""

from datetime import UTC, datetime, timedelta

from holdfast import App, Message, delay, first_of, receive, send
from holdfast.testing import Simulation

app = App("reminders")


class Billed(Message, correlation="bill"):
    bill: int
    closes: datetime


class Paid(Message, correlation="bill"):
    bill: int


class Reminded(Message, correlation="bill"):
    bill: int
    times: int


@app.workflow(start=Billed)
async def remind(billed: Billed) -> int:
    times = 0
    await delay(timedelta(days=2))
    while True:
        # The first of the three takes it all; the others are given up.
        came = await first_of(
            paid=receive(Paid, billed.bill),
            week=delay(timedelta(days=7)),
            closed=delay(billed.closes),
        )
        if came.name != "week":
            return times
        times += 1
        await send(Reminded(bill=billed.bill, times=times))


async def scenario(world: Simulation) -> None:
    await world.deliver(Billed(bill=1, closes=datetime(2026, 12, 31, tzinfo=UTC)))
    await world.deliver(Billed(bill=2, closes=datetime(2026, 1, 12, tzinfo=UTC)))
    await world.advance(timedelta(days=17))
    await world.deliver(Paid(bill=1))
    assert [world.instance(bill).result for bill in ("1", "2")] == [2, 1]
    assert [(each.bill, each.times) for each in world.sent(Reminded)] == [(1, 1), (2, 1), (1, 2)]
