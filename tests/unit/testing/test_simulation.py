"""What a simulation lets a test do, and what it shows of it."""

import asyncio
import threading
from datetime import timedelta

import pytest

from holdfast import App, Message, Retry, Transaction, activity_context, delay, first_of, gather, receive, send
from holdfast.processor.testing import simulation
from holdfast.schemas.errors import AppError
from holdfast.testing import Rows, Simulation

app = App("bakery")
other = App("elsewhere")
events: dict[str, asyncio.Event] = {}


class Ordered(Message, correlation="number"):
    number: int
    cakes: int = 1


class Paid(Message, correlation="number"):
    number: int


class Delivered(Message, correlation="number"):
    number: int
    by: str


class Kneaded(Message, correlation="number"):
    number: int


class Proved(Message, correlation="number"):
    number: int


class Painted(Message, correlation="number"):
    number: int


class Burnt(Exception):
    """Too long in the oven."""


@app.activity(retry=Retry(attempts=3, delay=timedelta(seconds=2)))
async def bake(cakes: int) -> str:
    if cakes > 12:
        raise Burnt(cakes)
    return f"{cakes} cakes"


@app.activity
def courier(number: int) -> str:
    return f"{threading.current_thread() is not threading.main_thread()} {number}"


@app.activity
async def weigh() -> None:
    await asyncio.sleep(0.01)


@app.activity
async def wait_at_gate() -> None:
    events["begun"].set()
    await events["gate"].wait()


@app.activity
async def stock(tx: Transaction, number: int) -> int:
    found = await (await tx.execute("select flour from stock")).fetchone()
    await tx.execute("insert into bookings values (%s)", (number,))
    return 0 if found is None else int(found[0])


@app.activity(queue="painters", retry=Retry(attempts=2, delay=timedelta(hours=1)))
async def paint(number: int) -> str:
    if activity_context().attempt == 1:
        raise Burnt(number)
    return f"painted {number}"


@other.activity
async def elsewhere() -> None:
    """Belong to another app."""


@app.workflow(start=Ordered)
async def cake(ordered: Ordered) -> str:
    baked = await bake(ordered.cakes)
    outcome = await first_of(paid=receive(Paid, ordered.number), late=delay(timedelta(days=3)))
    if outcome.name == "late":
        return "thrown away"
    await send(Delivered(number=ordered.number, by=await courier(ordered.number)))
    return baked


@app.workflow(start=Kneaded)
async def dough(kneaded: Kneaded) -> int:
    await gather(weigh(), weigh())
    return await stock(kneaded.number)


@app.workflow(start=Painted)
async def picture(painted: Painted) -> str:
    return await paint(painted.number)


@app.workflow(start=Proved)
async def proof(proved: Proved) -> None:
    await wait_at_gate()


@pytest.fixture(autouse=True)
def _closed_gate() -> None:
    events.update(gate=asyncio.Event(), begun=asyncio.Event())


async def test_a_workflow_runs_until_it_waits_and_shows_what_is_durable() -> None:
    async with Simulation(app) as world:
        ordered = await world.deliver(Ordered(number=7, cakes=2))
        instance = world.instance("7")
        assert (ordered.is_acked, world.verdict(ordered)) == (True, "applied")
        assert (instance.workflow, instance.status, instance.outcome) == ("cake", "idle", None)
        assert instance.variables == {"ordered": Ordered(number=7, cakes=2), "baked": "2 cakes"}
        assert [what.partition(" (line")[0] for what in instance.waits_for] == ["Paid '7'", "2026-01-04T00:00:00+00:00"]
        assert [type(each.event).__name__ for each in await world.history(instance)] == [
            "InstanceStarted",
            "ActivityCompleted",
            "BookmarkOpened",
            "BookmarkOpened",
            "Persisted",
        ]
        await world.deliver(Paid(number=7))
        assert (instance.status, world.instance().outcome, world.instance().result) == ("idle", "completed", "2 cakes")
        assert world.sent(Delivered) == [Delivered(number=7, by="True 7")]
        assert [(each.type, each.key) for each in world.outbox] == [("Delivered", "7")]


def test_a_simulation_needs_no_plugin() -> None:
    async def test() -> str | None:
        async with Simulation(app) as world:
            await world.deliver(Ordered(number=7))
            return world.instance().status

    assert asyncio.run(test()) == "idle"


async def test_timers_fire_at_their_moment_however_far_time_moves_at_once() -> None:
    async with Simulation(app) as world:
        await world.deliver(Ordered(number=7))
        await world.advance(timedelta(days=3) - timedelta(seconds=1))
        assert world.instance().status == "idle"
        await world.advance(3600 * 24 * 365)
        assert world.instance().result == "thrown away"
        (fired,) = [e for e in await world.history(world.instance()) if type(e.event).__name__ == "TimerFired"]
        assert fired.recorded_at.isoformat() == "2026-01-04T00:00:00+00:00"


async def test_attempts_of_an_activity_wait_for_time_to_pass() -> None:
    async with Simulation(app) as world:
        await world.deliver(Ordered(number=7, cakes=13))
        assert [run.attempt for run in world.activity_runs] == [1]
        await world.advance(2)
        assert [run.attempt for run in world.activity_runs] == [1, 2]
        await world.advance(4)
        assert [(run.attempt, type(run.outcome)) for run in world.activity_runs] == [(n, Burnt) for n in (1, 2, 3)]
        assert len({run.idempotency_key for run in world.activity_runs}) == 1
        instance = world.instance()
        assert (instance.is_suspended, instance.suspension_reason) == (True, "unhandled_exception")


async def test_a_suspended_instance_goes_on_when_it_is_told_to() -> None:
    fails = True

    async def burn(cakes: int) -> str:
        if fails:
            raise Burnt(cakes)
        return "saved"

    async with Simulation(app, stand_ins={bake: burn}) as world:
        await world.deliver(Ordered(number=7))
        await world.advance(10)
        assert world.instance().is_suspended
        fails = False
        await world.command(world.instance(), "resume")
        assert world.instance().variables["baked"] == "saved"


async def test_a_crash_drops_what_was_not_persisted_and_the_message_comes_again() -> None:
    async with Simulation(app) as world:
        proved = await world.deliver(Proved(number=7), rest=False)
        await events["begun"].wait()
        await world.crash()
        assert (proved.is_acked, world.instance().version, world.activity_runs[0].ended) == (False, 0, False)
        events["gate"].set()
        await world.start()
        assert (proved.is_acked, proved.times, world.instance().outcome) == (True, 2, "completed")
        one, two = world.activity_runs
        assert one.idempotency_key == two.idempotency_key


async def test_a_crash_leaves_what_was_persisted() -> None:
    async with Simulation(app) as world:
        await world.deliver(Ordered(number=7))
        await world.crash()
        paid = await world.deliver(Paid(number=7))
        assert (paid.times, world.instance().status) == (0, "idle")
        await world.start()
        assert (paid.times, world.instance().result) == (1, "1 cakes")
        assert [run.activity for run in world.activity_runs] == ["bake", "courier"]


async def test_the_other_host_takes_over_from_one_that_died() -> None:
    async with Simulation(app) as world:
        (first,) = world.hosts
        await world.start()
        await world.deliver(Ordered(number=7))
        await world.crash(first)
        await world.deliver(Paid(number=7))
        assert world.instance().outcome == "completed"


async def test_a_message_that_comes_twice_is_applied_once() -> None:
    async with Simulation(app) as world:
        await world.deliver(Ordered(number=7), message_id="a")
        again = await world.deliver(Ordered(number=7), message_id="a")
        assert again.is_acked
        assert len(world.activity_runs) == 1


async def test_a_message_that_comes_too_late_says_so() -> None:
    async with Simulation(app) as world:
        await world.deliver(Ordered(number=7))
        paid = [await world.deliver(Paid(number=7)) for _ in range(2)]
        assert [world.verdict(each) for each in paid] == ["applied", "rejected: completed"]


async def test_sql_is_answered_and_known_once_it_is_committed() -> None:
    def answer(query: str, parameters: object) -> Rows:
        return Rows((5,)) if query.startswith("select") else Rows()

    async with Simulation(app, sql=answer) as world:
        await world.deliver(Kneaded(number=3))
        assert world.instance().result == 5
        assert [(each.query, each.parameters) for each in world.sql] == [
            ("select flour from stock", None),
            ("insert into bookings values (%s)", (3,)),
        ]
        assert {each.instance_id for each in world.sql} == {world.instance().instance_id}


async def test_without_answers_sql_finds_no_rows() -> None:
    async with Simulation(app) as world:
        await world.deliver(Kneaded(number=3))
        assert world.instance().result == 0


async def test_functions_stand_in_for_activities() -> None:
    def fake_bake(cakes: int) -> str:
        return f"{cakes} painted cakes"

    async def fake_courier(number: int) -> str:
        return "nobody"

    async def fake_stock(tx: Transaction, number: int) -> int:
        return -1

    async with Simulation(app, stand_ins={bake: fake_bake, courier: fake_courier, stock: fake_stock}) as world:
        await world.deliver(Ordered(number=7))
        await world.deliver(Paid(number=7))
        await world.deliver(Kneaded(number=3))
        assert world.instance("7").result == "1 painted cakes"
        assert world.sent(Delivered)[0].by == "nobody"
        assert world.instance("3").result == -1
        assert [run.arguments for run in world.activity_runs] == [(1,), (7,), (), (), (3,)]
    async with Simulation(app) as world:
        await world.deliver(Ordered(number=7))
        assert world.instance().variables["baked"] == "1 cakes"


def test_a_stand_in_for_no_activity_of_the_app_is_an_error() -> None:
    with pytest.raises(AppError, match=r"elsewhere.*no activity of app bakery"):
        Simulation(app, stand_ins={elsewhere: lambda: None})


async def test_an_activity_that_does_not_end_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulation, "PATIENCE", 0.0)
    async with Simulation(app) as world:
        with pytest.raises(AppError, match=r"<activity wait_at_gate> has not ended.*rest=False"):
            await world.deliver(Proved(number=7))


async def test_activities_on_a_queue_are_done_by_a_worker() -> None:
    async with Simulation(app) as world:
        await world.deliver(Painted(number=7))
        assert (world.instance().status, len(world.activity_runs)) == ("idle", 1)
        await world.advance(timedelta(hours=1))
        assert world.instance().result == "painted 7"
        assert world.outbox == []


async def test_a_worker_ends_what_it_does_while_no_host_lives() -> None:
    async def paint_slowly(number: int) -> str:
        events["begun"].set()
        await events["gate"].wait()
        return "done"

    async with Simulation(app, stand_ins={paint: paint_slowly}) as world:
        await world.deliver(Painted(number=7), rest=False)
        resting = asyncio.create_task(world.rest())
        await events["begun"].wait()
        crashing = asyncio.create_task(world.crash())
        events["gate"].set()
        await asyncio.gather(resting, crashing)
        assert world.instance().status == "idle"
        await world.start()
        assert world.instance().result == "done"


async def test_an_instance_is_found_by_key_and_workflow_or_the_error_names_all() -> None:
    async with Simulation(app) as world:
        with pytest.raises(AppError, match=r"0 instances.*there are: none"):
            world.instance()
        await world.deliver(Ordered(number=7))
        await world.deliver(Kneaded(number=7))
        assert world.instance("7", workflow="dough").result == 0
        with pytest.raises(AppError, match="2 instances fit key '7' and workflow None; there are: cake/7, dough/7"):
            world.instance("7")


async def test_a_command_waits_for_a_host() -> None:
    async with Simulation(app) as world:
        await world.deliver(Ordered(number=7, cakes=13))
        await world.advance(10)
        await world.crash()
        await world.command(world.instance(), "resume")
        assert world.instance().is_suspended
        await world.start()
        assert not world.instance().is_suspended
