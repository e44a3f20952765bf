"""Activities on queues wherever their hosts die: in a subflow, side by side, between attempts, as compensation."""

from datetime import timedelta

from holdfast import App, Message, Retry, activity_context, compensable, gather, run
from holdfast.testing import Simulation, crash_prover

app = App("couriers")


class Ordered(Message, correlation="number"):
    number: int


class Packed(Message, correlation="number"):
    number: int


class Refused(Message, correlation="number"):
    number: int


class Jammed(Exception):
    """The printer has to be opened first."""


@app.activity(queue="labels", retry=Retry(attempts=3, delay=timedelta(seconds=1)), timeout=timedelta(minutes=1))
async def print_label(number: int) -> str:
    if activity_context().attempt == 1:
        raise Jammed(number)
    return f"label {number}"


@app.activity(queue="vans", heartbeat=timedelta(seconds=30))
async def drive(number: int) -> str:
    return f"van {number}"


@app.activity(queue="vans")
async def drive_back(van: str) -> str:
    return f"{van} is back"


# Run within its caller's transactions; yet what it asks for is done elsewhere, while both wait.
@app.workflow(start=Packed, persistence="in_memory")
async def labelling(packed: Packed) -> str:
    return await print_label(packed.number)


@app.workflow(start=Ordered, persistence="in_memory")
async def order(ordered: Ordered) -> str:
    label, van = await gather(run(labelling, Packed(number=ordered.number)), drive(ordered.number))
    return f"{label} in {van}"


@app.workflow(start=Refused, on_unhandled="cancel")
async def refused(start: Refused) -> None:
    async with compensable() as driving:
        driving.undo(drive_back, await drive(start.number))
    raise Jammed(start.number)


async def one_order(world: Simulation) -> None:
    await world.deliver(Ordered(number=7))
    await world.advance(timedelta(seconds=2))
    assert world.instance(workflow="order").result == "label 7 in van 7"


async def one_refusal(world: Simulation) -> None:
    await world.deliver(Refused(number=7))
    assert world.instance().outcome == "cancelled"
    assert world.activity_runs[-1].outcome == "van 7 is back"


# Protocol: D5, D6, D7, D8, D11, I17.
async def test_what_is_done_elsewhere_comes_out_the_same_wherever_a_host_dies() -> None:
    await crash_prover(app, one_order)


async def test_what_is_undone_elsewhere_is_undone_wherever_a_host_dies() -> None:
    await crash_prover(app, one_refusal)
