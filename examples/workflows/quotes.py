"""Three insurers are asked for a quote side by side, and each answer is checked by the same steps."""

from decimal import Decimal

from holdfast import App, Message, gather, receive, routine
from holdfast.testing import Simulation

app = App("quotes")


class QuoteWanted(Message, correlation="case"):
    case: str
    value: Decimal


class Signed(Message, correlation="case"):
    case: str
    by: str


class Declined(Exception):
    """The insurer does not want the case."""


@app.activity
async def ask(insurer: str, value: Decimal) -> Decimal:
    if insurer == "prudent" and value > 1000:
        raise Declined(insurer)
    return value * len(insurer) / 100


@app.activity
def tax(premium: Decimal) -> Decimal:
    return premium * Decimal("1.19")


# A routine is a part of a workflow with a name of its own: a further frame, stored and restored like the first.
@routine
async def quote(insurer: str, value: Decimal) -> tuple[Decimal, str] | None:
    try:
        premium = await ask(insurer, value)
    except Declined:
        return None
    return await tax(premium), insurer


@app.workflow(start=QuoteWanted)
async def compare(wanted: QuoteWanted) -> str:
    quotes = await gather(*[quote(insurer, wanted.value) for insurer in ("careful", "prudent", "quick")])
    price, insurer = min(found for found in quotes if found is not None)
    # Waits may stand side by side too.
    signed, witnessed = await gather(receive(Signed, wanted.case), receive(Signed, f"{wanted.case}/witness"))
    return f"{insurer} for {price} ({signed.by}, {witnessed.by})"


async def scenario(world: Simulation) -> None:
    await world.deliver(QuoteWanted(case="c", value=Decimal(2000)))
    await world.deliver(Signed(case="c/witness", by="Wim"))
    await world.deliver(Signed(case="c", by="Ada"))
    assert world.instance().result == "quick for 119.00 (Ada, Wim)"
