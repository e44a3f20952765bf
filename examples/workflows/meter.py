"""A meter is read for ever: each quarter ends an instance, and a new one with a short history takes its place."""

from holdfast import App, Message, continue_as_new, receive, send
from holdfast.testing import Simulation

app = App("meter")


class Installed(Message, correlation="meter"):
    meter: str
    stand: int = 0
    quarter: int = 1


class Read(Message, correlation="meter"):
    meter: str
    stand: int


class Billed(Message, correlation="meter"):
    meter: str
    quarter: int
    used: int


@app.workflow(start=Installed)
async def bill(installed: Installed) -> None:
    stand = installed.stand
    for _ in range(3):
        reading = await receive(Read, installed.meter)
        stand = max(stand, reading.stand)
    await send(Billed(meter=installed.meter, quarter=installed.quarter, used=stand - installed.stand))
    await continue_as_new(Installed(meter=installed.meter, stand=stand, quarter=installed.quarter + 1))


async def scenario(world: Simulation) -> None:
    await world.deliver(Installed(meter="m"))
    for stand in (10, 20, 30, 45, 60, 75, 80):
        await world.deliver(Read(meter="m", stand=stand))
    assert [(each.quarter, each.used) for each in world.sent(Billed)] == [(1, 30), (2, 45)]
    assert [each.outcome for each in world.instances] == ["completed", "completed", None]
    assert world.instances[-1].variables["stand"] == 80
