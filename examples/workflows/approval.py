"""A clerk asks for a decision; the case stands still until somebody lets it go on, and the clerk gets an answer."""

from holdfast import App, Message, reply, suspend
from holdfast.testing import Simulation

app = App("approval")


class Asked(Message, correlation="case"):
    case: str
    amount: int


class Decided(Message, correlation="case"):
    case: str
    decision: str


@app.activity
async def risk(amount: int) -> float:
    return amount / 10_000


@app.workflow(start=Asked, persistence="in_memory")
async def approve(asked: Asked) -> str:
    level = await risk(asked.amount)
    await reply(Decided(case=asked.case, decision="in review" if level > 0.5 else "approved"))
    if level > 0.5:
        await suspend(f"risk {level} is for a person to judge")
    return f"{await risk(asked.amount + 1)}"


async def scenario(world: Simulation) -> None:
    await world.deliver(Asked(case="easy", amount=100), reply_to="clerk")
    await world.deliver(Asked(case="hard", amount=9000), reply_to="clerk")
    case = world.instance("hard")
    assert (case.is_suspended, case.suspension_detail) == (True, "risk 0.9 is for a person to judge")
    await world.command(case, "resume")
    assert [world.instance(key).result for key in ("easy", "hard")] == ["0.0101", "0.9001"]
    assert [(each.exchange, each.routing_key) for each in world.outbox] == [("", "clerk")] * 2
