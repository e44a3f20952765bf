"""Message types are checked when they are declared, messages when they are made or parsed."""

from collections.abc import Callable
from enum import StrEnum
from types import new_class
from typing import cast
from uuid import UUID

import pytest

from holdfast.schemas.errors import AppError, HoldfastError, InvalidMessage
from holdfast.schemas.message import MAX_DEPTH, Envelope, Message


class Paid(Message, correlation="order", type="shop.paid"):
    order: str | None
    notes: object = None


class Colour(StrEnum):
    RED = "red"


def declare(annotation: object, **options: str) -> type[Message]:
    """Declare a message with one field, ``key``."""
    body = {"__annotations__": {"key": annotation}, "__module__": __name__}
    return cast("type[Message]", new_class("Declared", (Message,), options, lambda names: names.update(body)))


def paid(body: bytes, key: str = "7") -> Envelope:
    return Envelope(message_id="m", type="shop.paid", key=key, body=body)


def test_a_message_travels_with_its_type_and_key() -> None:
    envelope = Paid(order="7").envelope("m-1", "00-trace")
    assert (envelope.message_id, envelope.type, envelope.key) == ("m-1", "shop.paid", "7")
    assert envelope.traceparent == "00-trace"
    assert Paid.parse(envelope) == Paid(order="7")


@pytest.mark.parametrize(
    ("annotation", "value", "key"),
    [
        (str, "a", "a"),
        (int, 7, "7"),
        (UUID, UUID(int=1), str(UUID(int=1))),
        (Colour, "red", "red"),
        (str | int, 7, "7"),
    ],
)
def test_a_key_is_the_text_of_its_field(annotation: object, value: object, key: str) -> None:
    kind = declare(annotation, correlation="key")
    message = kind.model_validate({"key": value})
    assert message.correlation_key == key
    assert kind.parse(message.envelope("m")) == message


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: declare(str, correlation="order"), "'order', which is not one of its fields"),
        (lambda: declare(float, correlation="key"), "is a float: use a string, an integer or a UUID"),
        (lambda: declare(bool, correlation="key"), "is a bool"),
        (lambda: declare(str, type="x" * 256), "type has 256 bytes, at most 255"),
        (lambda: declare(str, type="é" * 128), "type has 256 bytes, at most 255"),
        (lambda: declare(str, exchange="x" * 256), "exchange has 256 bytes, at most 255"),
        (lambda: declare(str).model_validate({"key": "k"}).correlation_key, "has no correlation"),
        (lambda: Paid(order="x" * 256).envelope("m"), "correlation has 256 bytes, at most 255"),
        (lambda: Paid(order="").envelope("m"), "correlation is empty"),
        (lambda: Paid(order=None).envelope("m"), "order is null"),
        (lambda: Paid(order="a\x00").envelope("m"), "correlation holds a NUL"),
        (lambda: Paid(order="7").envelope("x" * 256), "message_id has 256 bytes, at most 255"),
    ],
)
def test_what_cannot_travel_is_refused_where_it_is_made(make: Callable[[], object], said: str) -> None:
    with pytest.raises(HoldfastError, match=said) as caught:
        make()
    assert isinstance(caught.value, AppError | InvalidMessage)


def test_names_of_255_bytes_are_fine() -> None:
    name = "é" * 127 + "x"
    assert declare(str, type=name, exchange=name).message_type == name
    assert Paid(order=name).envelope(name).key == name


@pytest.mark.parametrize(
    ("envelope", "reason"),
    [
        (paid(b"{"), "not_json"),
        (paid(b""), "not_json"),
        (paid(b'{"order": "7", "notes": NaN}'), "not_json"),
        (paid(b'{"order": "\xff"}'), "not_json"),
        (paid(b"[]"), "invalid_body"),
        (paid(b'{"order": []}'), "invalid_body"),
        (paid(b'{"order": null}'), "missing_correlation"),
        (paid(b'{"order": "8"}'), "correlation_mismatch"),
        (paid(b'{"order": "7", "notes": %s%s}' % (b"[" * MAX_DEPTH, b"]" * MAX_DEPTH)), "too_deep"),
        (paid(b'{"notes":' * 100_000), "too_deep"),
    ],
)
def test_a_body_that_breaks_the_contract_has_a_reason(envelope: Envelope, reason: str) -> None:
    with pytest.raises(InvalidMessage) as caught:
        Paid.parse(envelope)
    assert caught.value.reason == reason
    assert caught.value.detail


@pytest.mark.parametrize(
    "notes",
    [
        b"[" * (MAX_DEPTH - 1) + b"]" * (MAX_DEPTH - 1),
        b'"' + b"[" * 1000 + b'"',
        rb'"\"' + b"{" * 1000 + b'"',
        b"[" + b"[]," * 1000 + b"[]]",
    ],
    ids=["as deep as allowed", "brackets in a string", "brackets behind an escaped quote", "wide"],
)
def test_a_body_that_is_not_too_deep_is_read(notes: bytes) -> None:
    assert Paid.parse(paid(b'{"order": "7", "notes": %s}' % notes)).order == "7"
