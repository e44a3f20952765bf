"""A new colleague is set up: one workflow runs another as a part of itself, starts a second, and sends off a third."""

from datetime import timedelta
from uuid import UUID

from holdfast import App, Message, Transaction, receive, run, send, spawn, start
from holdfast.testing import Simulation

app = App("onboarding")


class Hired(Message, correlation="person"):
    person: str


class AccountWanted(Message, correlation="person"):
    person: str


class LaptopWanted(Message, correlation="person"):
    person: str


class LaptopReady(Message, correlation="person"):
    person: str
    serial: str


class WelcomeWanted(Message, correlation="person"):
    person: str


class Welcomed(Message, correlation="person"):
    person: str


class NoLaptop(Exception):
    """There was none in time."""


@app.activity
async def choose_name(person: str) -> str:
    return person.lower()


@app.activity
async def create_account(tx: Transaction, name: str) -> None:
    await tx.execute("insert into accounts (name) values (%s)", (name,))


@app.activity
async def greet(person: str) -> str:
    return f"welcome, {person}"


# Run by another workflow, so in memory: it has no transactions of its own.
@app.workflow(start=AccountWanted, persistence="in_memory")
async def account(wanted: AccountWanted) -> str:
    name = await choose_name(wanted.person)
    await create_account(name)
    return name


@app.workflow(start=LaptopWanted, on_unhandled="terminate")
async def laptop(wanted: LaptopWanted) -> str:
    try:
        ready = await receive(LaptopReady, wanted.person, timeout=timedelta(days=14))
    except TimeoutError:
        raise NoLaptop(wanted.person) from None
    return ready.serial


@app.workflow(start=WelcomeWanted)
async def welcome(wanted: WelcomeWanted) -> None:
    await greet(wanted.person)
    await send(Welcomed(person=wanted.person))


@app.workflow(start=Hired)
async def onboard(hired: Hired) -> dict[str, str]:
    name = await run(account, AccountWanted(person=hired.person))
    greeting: UUID = await spawn(welcome, WelcomeWanted(person=hired.person))
    try:
        serial = await start(laptop, LaptopWanted(person=hired.person))
    except NoLaptop:
        serial = "their own"
    return {"name": name, "laptop": serial, "greeting": str(greeting)}


async def scenario(world: Simulation) -> None:
    await world.deliver(Hired(person="Ada"))
    await world.deliver(Hired(person="Bob"))
    await world.deliver(LaptopReady(person="Ada", serial="X1"))
    await world.advance(timedelta(days=14))
    results = [world.instance(person, workflow="onboard").result for person in ("Ada", "Bob")]
    assert [(each["name"], each["laptop"]) for each in results] == [("ada", "X1"), ("bob", "their own")]
    assert [each.person for each in world.sent(Welcomed)] == ["Ada", "Bob"]
    assert [statement.parameters for statement in world.sql] == [("ada",), ("bob",)]
