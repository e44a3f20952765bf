"""Money leaves the house: a call that must never be made twice, a slow check elsewhere, a bank that is often closed."""

from datetime import timedelta

from holdfast import App, Message, Retry, activity_context
from holdfast.testing import Simulation

app = App("payout")


class PayoutWanted(Message, correlation="payout"):
    payout: str
    amount: int


class BankClosed(Exception):
    """It opens again."""


# Done by activity workers, over RabbitMQ, while the instance is idle and may be unloaded.
@app.activity(queue="checks")
async def check(amount: int) -> bool:
    return amount < 1000


# Its next attempt is a durable timer: the wait survives a restart.
@app.activity(retry=Retry(attempts=5, delay=timedelta(hours=1), factor=1, max_delay=timedelta(hours=1)))
async def reserve(payout: str) -> str:
    if activity_context().attempt < 3:
        raise BankClosed(payout)
    return f"reservation of {payout}"


# If its host dies in the middle, nobody knows whether it was done: then the instance is suspended, in doubt.
@app.activity(repeatable=False)
async def transfer(reservation: str, amount: int) -> str:
    return f"{amount} by {reservation}"


@app.workflow(start=PayoutWanted)
async def pay(wanted: PayoutWanted) -> str:
    if not await check(wanted.amount):
        return "refused"
    reservation = await reserve(wanted.payout)
    return await transfer(reservation, wanted.amount)


async def scenario(world: Simulation) -> None:
    await world.deliver(PayoutWanted(payout="p1", amount=100))
    await world.deliver(PayoutWanted(payout="p2", amount=5000))
    await world.advance(timedelta(hours=2))
    assert [world.instance(payout).result for payout in ("p1", "p2")] == ["100 by reservation of p1", "refused"]
