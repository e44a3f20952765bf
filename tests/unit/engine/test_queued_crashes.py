"""Activities on queues wherever their hosts die: in subflows, side by side, between attempts, as compensation."""

from datetime import timedelta

from holdfast import (
    App,
    Message,
    Retry,
    activity_context,
    compensable,
    gather,
    receive,
    routine,
    run,
    send,
)
from holdfast.testing import Simulation, crash_prover

app = App("couriers")


class Ordered(Message, correlation="number"):
    number: int


class Packed(Message, correlation="number"):
    number: int


class Returned(Message, correlation="number"):
    number: int


class Shipped(Message, correlation="number"):
    number: int
    labels: list[str]


class Jammed(Exception):
    """The printer has to be opened first."""


@app.activity(queue="labels", retry=Retry(attempts=3, delay=timedelta(seconds=1)), timeout=timedelta(minutes=1))
def print_label(number: int) -> str:
    if activity_context().attempt == 1:
        raise Jammed(number)
    return f"label {number}"


@app.activity(queue="vans", heartbeat=timedelta(seconds=30))
async def drive(number: int) -> str:
    return f"van {number}"


@app.activity(queue="vans")
async def drive_back(van: str) -> str:
    return f"{van} is back"


@app.activity
async def pack(number: int) -> int:
    return number


# Run within its caller's transactions; yet what it asks for is done elsewhere, while both wait.
@app.workflow(start=Packed, persistence="in_memory")
async def labelling(packed: Packed) -> str:
    return await print_label(await pack(packed.number))


@routine
async def label(number: int) -> str:
    return await run(labelling, Packed(number=number))


@app.workflow(start=Ordered, persistence="in_memory", on_unhandled="cancel")
async def order(ordered: Ordered) -> list[str]:
    async with compensable() as driving:
        van = await drive(ordered.number)
        driving.undo(drive_back, van)
    first, number, second = await gather(label(ordered.number), pack(ordered.number), print_label(ordered.number + 1))
    await send(Shipped(number=number, labels=[first, second]))
    await receive(Returned, ordered.number)
    raise Jammed(van)


async def order_and_return(world: Simulation) -> None:
    await world.deliver(Ordered(number=7))
    await world.advance(timedelta(seconds=5))
    assert [message.labels for message in world.sent(Shipped)] == [["label 7", "label 8"]]
    await world.deliver(Returned(number=7))
    await world.advance(timedelta(seconds=5))
    assert world.instance(workflow="order").outcome == "cancelled"
    assert [run.outcome for run in world.activity_runs if run.activity == "drive_back"][-1] == "van 7 is back"


# Protocol: D5, D6, D7, D8, D11, I17.
async def test_what_is_done_elsewhere_comes_out_the_same_wherever_a_host_dies() -> None:
    await crash_prover(app, order_and_return)
