"""A journey is booked piece by piece; what was booked is given back if it comes to nothing."""

from datetime import timedelta

from holdfast import App, Message, compensable, compensate, confirm, receive, send
from holdfast.testing import Simulation

app = App("travel")


class JourneyWanted(Message, correlation="journey"):
    journey: str


class Answered(Message, correlation="journey"):
    journey: str
    hotel: bool
    flight: bool


class Booked(Message, correlation="journey"):
    journey: str
    parts: list[str]


class FullyBooked(Exception):
    """There is no room left."""


class Declined(Exception):
    """The traveller changed their mind."""


@app.activity
async def book(part: str, journey: str) -> str:
    if part == "car" and journey == "island":
        raise FullyBooked(part)
    return f"{part} of {journey}"


@app.activity
async def give_back(booking: str) -> None:
    """Cancel a booking."""


@app.activity
async def release(journey: str) -> None:
    """Cancel what was asked for and not yet booked."""


@app.activity
async def pay(booking: str) -> None:
    """Pay a deposit."""


# An exception that nobody handles cancels the instance: what its scopes did is undone, newest first.
@app.workflow(start=JourneyWanted, on_unhandled="cancel")
async def travel(wanted: JourneyWanted) -> list[str]:
    parts = []
    async with compensable() as flight:
        parts.append(await book("flight", wanted.journey))
        flight.undo(give_back, parts[-1])
        flight.confirm(pay, parts[-1])
    async with compensable() as hotel:
        parts.append(await book("hotel", wanted.journey))
        hotel.undo(give_back, parts[-1])
        hotel.confirm(pay, parts[-1])
    try:
        async with compensable() as car:
            # If an exception leaves the scope and is caught, this is what is done about the half of it.
            car.cancel(release, wanted.journey)
            parts.append(await book("car", wanted.journey))
            car.undo(give_back, parts[-1])
    except FullyBooked:
        pass
    answered = await receive(Answered, wanted.journey, timeout=timedelta(days=7))
    if not answered.flight:
        raise Declined(wanted.journey)
    # On purpose, and earlier than the end would do it.
    await confirm(flight)
    if not answered.hotel:
        await compensate(hotel)
    await send(Booked(journey=wanted.journey, parts=parts))
    return parts


async def scenario(world: Simulation) -> None:
    for journey in ("island", "city", "desert"):
        await world.deliver(JourneyWanted(journey=journey))
    await world.deliver(Answered(journey="island", flight=True, hotel=False))
    await world.deliver(Answered(journey="city", flight=False, hotel=False))
    await world.advance(timedelta(days=7))
    assert [each.outcome for each in world.instances] == ["completed", "cancelled", "cancelled"]
    assert world.instance("island").result == ["flight of island", "hotel of island"]
    done = [f"{run.activity} {run.arguments[0]}" for run in world.activity_calls if run.activity != "book"]
    assert done == [
        "release island",
        "pay flight of island",
        "give_back hotel of island",
        "give_back car of city",
        "give_back hotel of city",
        "give_back flight of city",
        "give_back car of desert",
        "give_back hotel of desert",
        "give_back flight of desert",
    ]
