"""JSON Schemas of messages and events, by a validator that is not ours."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from jsonschema import Draft202012Validator

from holdfast.events.event_schemas import event_schemas
from holdfast.events.recorded import Cursor, RecordedEvent
from holdfast.processor.broker.asyncapi import asyncapi, received
from holdfast.processor.broker.topology import Topology
from holdfast.processor.language.app import App
from holdfast.processor.language.awaitables import receive, send
from holdfast.processor.language.routine import routine
from holdfast.processor.services.event_messages import event_message
from holdfast.schemas.errors import AppError, InvalidMessage
from holdfast.schemas.message import Message
from holdfast.schemas.message_schemas import message_schema
from tests.support.events import EVERY_TYPE

GOLDEN = Path(__file__).parents[1] / "golden" / "events"


class Placed(Message, correlation="order_id", type="shop.placed"):
    order_id: UUID
    amount: Decimal
    note: str | None = None


class Paid(Message, correlation="order_id"):
    order_id: UUID


class Asked(Message, correlation="order_id"):
    order_id: UUID


class Shipped(Message):
    amount: Decimal


class Wanted(Message, exchange="holdfast.billing", type="two words"):
    amount: Decimal


class Odd(Message):
    what: Callable[[], int]


app = App("shop", types=(Shipped, Wanted))


@app.activity(queue="mail")
async def mail() -> None:
    """Do nothing."""


@routine
async def ask(order_id: UUID) -> None:
    await receive(Asked, str(order_id))


@app.workflow(start=Placed)
async def order(placed: Placed) -> None:
    await mail()
    await ask(placed.order_id)
    await receive(Paid, str(placed.order_id))
    await send(Shipped(amount=placed.amount))
    await send(Wanted(amount=placed.amount))


BODIES: list[Any] = [
    {"order_id": "01890a5d-ac96-774b-bcce-b302099a8057", "amount": "7.99"},
    {"order_id": "01890a5d-ac96-774b-bcce-b302099a8057", "amount": 7.99, "note": None},
    {"order_id": "01890a5d-ac96-774b-bcce-b302099a8057"},
    {"order_id": 7, "amount": "7.99"},
    {"order_id": "01890a5d-ac96-774b-bcce-b302099a8057", "amount": []},
    {"order_id": "01890a5d-ac96-774b-bcce-b302099a8057", "amount": "7.99", "note": 1},
    [],
]


@pytest.mark.parametrize("body", BODIES)
def test_a_schema_takes_the_bodies_that_the_app_takes(body: Any) -> None:
    schema = message_schema(Placed)
    Draft202012Validator.check_schema(schema)
    assert Draft202012Validator(schema).is_valid(body) == fits(body)


def fits(body: Any) -> bool:
    try:
        Placed.parse_body(json.dumps(body).encode())
    except InvalidMessage:
        return False
    return True


def test_what_is_sent_is_described_as_it_is_written() -> None:
    written = json.loads(Shipped(amount=Decimal("7.99")).model_dump_json())
    validator = Draft202012Validator(message_schema(Shipped, "serialization"))
    assert validator.is_valid(written)
    assert not validator.is_valid({"amount": 7.99})


def test_a_type_without_a_schema_is_named() -> None:
    with pytest.raises(AppError, match="Odd"):
        message_schema(Odd)


@pytest.mark.parametrize("file", sorted(GOLDEN.glob("*.json")), ids=lambda file: file.stem)
def test_every_stored_event_fits_its_schema(file: Path) -> None:
    schemas = event_schemas()
    for stored in json.loads(file.read_text()):
        schema = schemas[stored["type"]]
        Draft202012Validator.check_schema(schema)
        Draft202012Validator(schema).validate(stored["data"])


def test_an_event_of_another_shape_does_not_fit() -> None:
    assert not Draft202012Validator(event_schemas()["InstanceSuspended"]).is_valid({"reason": "boredom"})


def test_a_document_says_what_is_taken_in_and_what_is_sent() -> None:
    assert [kind.__name__ for kind in received(app)] == ["Asked", "Paid", "Placed"]
    document = asyncapi(app, Topology("shop", 2, app.activity_queues), "1.2.3")
    assert len(document["operations"].pop("publishEvents")["messages"]) == len(event_schemas())
    operations = {
        name: (each["action"], [message["$ref"].rpartition("/")[2] for message in each["messages"]])
        for name, each in document["operations"].items()
    }
    assert operations == {
        "takeIn": ("receive", ["Asked", "Paid", "shop.placed"]),
        "send": ("send", ["Shipped"]),
        "send_to_holdfast.billing": ("send", ["two_words"]),
        "request": ("send", ["holdfast.ActivityRequest"]),
        "command": ("receive", ["holdfast.Control"]),
        "takeResults": ("receive", ["holdfast.ActivityResult", "holdfast.ActivityHeartbeat"]),
    }
    placed = document["components"]["messages"]["shop.placed"]
    assert placed["correlationId"]["location"] == "$message.payload#/order_id"
    assert placed["bindings"]["amqp"]["messageType"] == "shop.placed"


def test_every_exchange_and_queue_of_the_topology_is_in_the_document() -> None:
    topology = Topology("shop", 2, app.activity_queues)
    channels = [each["bindings"]["amqp"] for each in asyncapi(app, topology, "1")["channels"].values()]
    names = {(each.get("exchange") or each["queue"])["name"] for each in channels}
    exchanges = {exchange.name for exchange in topology.plain_exchanges}
    assert topology.ring is not None
    assert topology.requests is not None
    queues = {*topology.queues, topology.dead, topology.control, "holdfast.shop.activity.mail"}
    assert names == exchanges | queues | {topology.ring.name, topology.requests.name, "holdfast.billing"}


def test_an_event_that_is_published_fits_the_document() -> None:
    document = asyncapi(app, Topology("shop"), "1")
    moment = datetime(2026, 3, 4, tzinfo=UTC)
    for number, event in enumerate(EVERY_TYPE, 1):
        recorded = RecordedEvent(UUID(int=7), number, event, Cursor(1, 2, number), {}, moment)
        body = json.loads(event_message("shop", "holdfast.shop.events", recorded, "order").body)
        payload = document["components"]["messages"][f"event.{type(event).__name__}"]["payload"]
        validator = Draft202012Validator({**payload, "components": document["components"]})
        validator.validate(body)
        assert not validator.is_valid({**body, "version": 0})


def test_the_document_says_how_history_is_told_that_is_published_again() -> None:
    messages = asyncapi(app, Topology("shop"), "1")["components"]["messages"]
    headers = [each["headers"]["properties"] for name, each in messages.items() if name.startswith("event.")]
    assert len(headers) == len({type(event) for event in EVERY_TYPE})
    assert all({"x-holdfast-replayed", "x-holdfast-replayed-at", "traceparent"} == {*each} for each in headers)
