"""Which properties make an envelope, and what is kept of those that do not."""

import pytest

from holdfast.processor.broker.delivery import read_envelope, salvage
from holdfast.processor.broker.frames import Properties
from holdfast.schemas.errors import InvalidMessage
from holdfast.schemas.message import Envelope

GOOD = Properties(message_id="m-1", type="Paid", correlation_id="order-1")


def test_good_properties_make_an_envelope() -> None:
    assert read_envelope(GOOD, b"{}") == Envelope(message_id="m-1", type="Paid", key="order-1", body=b"{}")


def test_the_trace_context_comes_along() -> None:
    table = b"\x00\x00\x00\x14\x0btraceparentS\x00\x00\x00\x0300-"
    assert read_envelope(GOOD._replace(table=table), b"{}").traceparent == "00-"
    # A NUL is ASCII too, but no text that Postgres stores.
    assert read_envelope(GOOD._replace(table=table.replace(b"00-", b"0\x00-")), b"{}").traceparent is None


@pytest.mark.parametrize(
    ("reply_to", "queue"), [("answers", "answers"), (None, None), ("", None), ("a\x00b", None), ("\udcff", None)]
)
def test_who_waits_for_an_answer_is_told_by_a_name_that_a_queue_can_have(
    reply_to: str | None, queue: str | None
) -> None:
    properties = GOOD._replace(reply_to=reply_to)
    assert read_envelope(properties, b"{}").reply_to == queue
    assert salvage(properties, b"{}").reply_to == queue


@pytest.mark.parametrize(
    ("properties", "reason"),
    [
        (GOOD._replace(message_id=None), "missing_message_id"),
        (GOOD._replace(message_id=""), "missing_message_id"),
        (GOOD._replace(message_id="a\x00b"), "invalid_message_id"),
        (GOOD._replace(type=None), "missing_type"),
        (GOOD._replace(type="\udcff"), "invalid_type"),
        (GOOD._replace(correlation_id=None), "missing_correlation"),
        (GOOD._replace(correlation_id="\udcff"), "invalid_correlation"),
    ],
)
def test_bad_properties_are_refused_with_a_reason(properties: Properties, reason: str) -> None:
    with pytest.raises(InvalidMessage) as caught:
        read_envelope(properties, b"{}")
    assert caught.value.reason == reason


def test_a_body_may_be_as_large_as_allowed_and_no_larger() -> None:
    assert read_envelope(GOOD, b"x" * 10, max_body_bytes=10).body == b"x" * 10
    with pytest.raises(InvalidMessage, match="11 bytes, at most 10") as caught:
        read_envelope(GOOD, b"x" * 11, max_body_bytes=10)
    assert caught.value.reason == "too_large"


def test_what_cannot_be_stored_is_replaced_in_a_dead_letter() -> None:
    kept = salvage(Properties("m\x001", "\udcff", "k\udcfe"), b"\x00\xff")
    assert kept == Envelope(message_id="m?1", type="?", key="k?", body=b"\x00\xff")


def test_a_message_without_an_id_gets_the_same_one_on_each_delivery() -> None:
    one = salvage(Properties(type="Paid", correlation_id="k"), b"{}")
    assert one.message_id.startswith("unidentified:")
    assert salvage(Properties(type="Paid", correlation_id="k"), b"{}") == one
    assert salvage(Properties(type="Paid", correlation_id="k"), b"[]").message_id != one.message_id
    assert salvage(Properties(), b"").type == ""
