"""Money moves between two accounts, in one transaction or not at all."""

from decimal import Decimal

from holdfast import App, Message, Transaction, defer, send, transaction
from holdfast.testing import Simulation

app = App("transfer")


class TransferWanted(Message, correlation="transfer"):
    transfer: str
    amount: Decimal
    limit: Decimal = Decimal(100)


class Transferred(Message, correlation="transfer"):
    transfer: str


class OverLimit(Exception):
    """More than may be moved at once."""


@app.activity
async def post(tx: Transaction, account: str, amount: Decimal) -> None:
    await tx.execute("update accounts set balance = balance + %s where account = %s", (amount, account))


@app.activity
async def audit(tx: Transaction, transfer: str, verdict: str) -> None:
    await tx.execute("insert into audits (transfer, verdict) values (%s, %s)", (transfer, verdict))


@app.activity
async def check(amount: Decimal, limit: Decimal) -> None:
    if amount > limit:
        raise OverLimit(amount)


@app.workflow(start=TransferWanted)
async def move(wanted: TransferWanted) -> str:
    verdict = "refused"
    try:
        async with transaction():
            await post("from", -wanted.amount)
            await send(Transferred(transfer=wanted.transfer))
            # If this raises, the posting and the message are as if they had never been.
            await check(wanted.amount, wanted.limit)
            await post("to", wanted.amount)
            verdict = "moved"
    except OverLimit:
        pass
    # Not now, but in the transaction of whatever persistence point comes next.
    await defer(audit(wanted.transfer, verdict))
    return verdict


async def scenario(world: Simulation) -> None:
    await world.deliver(TransferWanted(transfer="small", amount=Decimal(80)))
    await world.deliver(TransferWanted(transfer="large", amount=Decimal(800)))
    assert [world.instance(key).result for key in ("small", "large")] == ["moved", "refused"]
    assert world.sent(Transferred) == [Transferred(transfer="small")]
    assert [statement.parameters for statement in world.sql] == [
        (Decimal(-80), "from"),
        (Decimal(80), "to"),
        ("small", "moved"),
        ("large", "refused"),
    ]
