"""A month of bookings becomes a statement: one transaction for a whole stretch of work, and three points on the way."""

from decimal import Decimal

from holdfast import App, Message, checkpoint
from holdfast.testing import Simulation

app = App("statements")


class MonthEnded(Message, correlation="month"):
    month: str
    bookings: list[Decimal]


@app.activity
def total(bookings: list[Decimal]) -> Decimal:
    return sum(bookings, Decimal(0))


@app.activity
async def render(month: str, balance: Decimal) -> str:
    return f"{month}: {balance:.2f}"


# After this one there is a persistence point, whatever the mode of the workflow is.
@app.activity(persist_on_close=True)
async def archive(statement: str) -> str:
    return f"archive/{statement.partition(':')[0]}"


@app.activity
async def notify(place: str) -> None:
    """Tell somebody where the statement is."""


# In memory nothing is written from one activity to the next: after a crash all since the last point is done again.
@app.workflow(start=MonthEnded, persistence="in_memory")
async def state(ended: MonthEnded) -> str:
    balance = await total(ended.bookings)
    statement = await render(ended.month, balance)
    await checkpoint()
    place = await archive(statement)
    await notify(place)
    return place


async def scenario(world: Simulation) -> None:
    await world.deliver(MonthEnded(month="2026-01", bookings=[Decimal("12.50"), Decimal(-3)]))
    assert world.instance().result == "archive/2026-01"
    reasons = [getattr(each.event, "reason", None) for each in await world.history(world.instance())]
    assert [reason for reason in reasons if reason] == ["checkpoint", "persist_on_close", "completed"]
