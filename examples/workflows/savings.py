"""Every deposit is booked in the transaction that takes it out of the mailbox; one that fails stays there."""

from decimal import Decimal

from holdfast import App, Message, Transaction, no_persist, transacted_receive
from holdfast.testing import Simulation

app = App("savings")


class Opened(Message, correlation="account"):
    account: str


class Deposited(Message, correlation="account"):
    account: str
    amount: Decimal


@app.activity
async def book(tx: Transaction, account: str, amount: Decimal) -> None:
    await tx.execute("insert into deposits (account, amount) values (%s, %s)", (account, amount))


@app.activity
async def rate(balance: Decimal) -> Decimal:
    return Decimal("0.02") if balance < 1000 else Decimal("0.01")


@app.activity
async def interest(balance: Decimal, rate: Decimal) -> Decimal:
    return balance * rate


@app.workflow(start=Opened)
async def save(opened: Opened) -> Decimal:
    balance = Decimal(0)
    for _ in range(3):
        async with transacted_receive(Deposited, opened.account) as deposit:
            await book(opened.account, deposit.amount)
            balance += deposit.amount
    # Both or none: after a crash in between, the rate is asked for again.
    async with no_persist():
        current = await rate(balance)
        balance += await interest(balance, current)
    return balance


async def scenario(world: Simulation) -> None:
    await world.deliver(Opened(account="s"))
    for amount in (100, 200, 300):
        await world.deliver(Deposited(account="s", amount=Decimal(amount)))
    assert world.instance().result == Decimal(612)
    assert [statement.parameters[1] for statement in world.sql] == [100, 200, 300]
