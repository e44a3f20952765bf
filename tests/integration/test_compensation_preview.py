"""On Postgres: what a client previews is what a cancel then undoes."""

import asyncio
import uuid
from dataclasses import asdict

import orjson
import pytest

from holdfast import App, Client, InstanceNotFound, Message, compensable, confirm, receive
from holdfast.processor.cli.compensation import lines
from holdfast.processor.services.detection import Detection
from holdfast.schemas.settings import Settings
from tests.support.commands import holdfast
from tests.support.hosts import running_host
from tests.support.workers import environment

app = App("previews")
undone: list[tuple[str, int]] = []


class Booked(Message, correlation="trip"):
    trip: str


class Changed(Booked): ...


@app.activity
async def release(what: str, count: int = 1) -> None:
    undone.append((what, count))


@app.activity
async def thank(trip: str) -> None: ...


@app.workflow(start=Booked)
async def trip(booked: Booked) -> None:
    async with compensable() as journey:
        journey.undo(release, "train", count=2)
        async with compensable() as night:
            night.undo(release, "hotel")
        journey.undo(release, "car")
    async with compensable() as dinner:
        dinner.undo(release, "table")
        dinner.confirm(thank, booked.trip)
    await confirm(dinner)
    await receive(Changed, booked.trip)


async def test_what_a_client_previews_is_what_a_cancel_then_undoes(database_url: str) -> None:
    undone.clear()
    async with running_host(app, database_url, Settings()) as host, Client(database_url, app=app.name) as client:
        instance_id = await host.deliver(Booked(trip="7"))
        found = await client.compensation(instance_id)
        expected = [(each.arguments[0], each.keywords.get("count", 1)) for each in found.due]
        assert expected == [("car", 1), ("hotel", 1), ("train", 2)]
        assert [(gone.action.kind, gone.action.name, gone.action.status, gone.fate) for gone in found.gone] == [
            ("undo", "release", "confirmed", "dropped"),
            ("confirm", "thank", "confirmed", "called"),
        ]
        printed = await asyncio.to_thread(holdfast, "compensation", str(instance_id), env=environment(database_url, ""))
        assert printed.stdout.splitlines() == lines(found)
        json = await asyncio.to_thread(
            holdfast, "compensation", str(instance_id), "--json", env=environment(database_url, "")
        )
        assert orjson.loads(json.stdout) == orjson.loads(orjson.dumps({"instance_id": instance_id, **asdict(found)}))
        await client.cancel(instance_id, by="tester")
        await Detection(host.engine).look()
        await host.rest()
        assert undone == expected
        after = await client.compensation(instance_id)
        assert (after.outcome, after.due) == ("cancelled", ())
        assert [gone.fate for gone in after.gone] == ["called", "called", "called", "dropped", "called"]


async def test_an_instance_that_is_not_there_has_nothing_to_preview(database_url: str) -> None:
    async with Client(database_url) as client:
        with pytest.raises(InstanceNotFound):
            await client.compensation(uuid.uuid4())
