"""The codec of the hot frames against the general one."""

import datetime as dt
import struct

import pamqp.frame
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pamqp import encode
from pamqp.body import ContentBody
from pamqp.commands import Basic
from pamqp.header import ContentHeader

from holdfast.processor.broker import frames
from holdfast.processor.broker.frames import REPLAYED, REPLAYED_AT, Damaged, Properties
from holdfast.schemas.message import Envelope

short = st.text(st.characters(exclude_categories=["Cs"]), max_size=255).filter(lambda s: len(s.encode()) <= 255)
optional = st.none() | short
# The general codec cuts longer names of headers short.
header_names = short.filter(lambda s: len(s.encode()) <= 128)
headers = st.dictionaries(header_names, st.integers(-(2**31), 2**31 - 1) | short | st.booleans(), max_size=4)


def payload(frame: bytes) -> bytes:
    return frame[7:-1]


def unmarshal(data: bytes) -> list[object]:
    found: list[object] = []
    while data:
        size, channel, frame = pamqp.frame.unmarshal(data)
        assert channel == 7
        found.append(frame)
        data = data[size:]
    return found


@given(
    exchange=st.text("abc.", max_size=20),
    routing_key=short,
    envelope=st.builds(
        Envelope,
        message_id=short,
        type=short,
        key=short,
        body=st.binary(max_size=300),
        traceparent=st.none() | st.text("0123456789abcdef-", min_size=1, max_size=55),
        reply_to=st.none() | short.filter(bool),
    ),
)
def test_a_published_message_reads_as_it_was_written(exchange: str, routing_key: str, envelope: Envelope) -> None:
    method, header, *bodies = unmarshal(frames.publish(7, exchange, routing_key, envelope, frame_max=100))
    assert isinstance(method, Basic.Publish)
    assert (method.exchange, method.routing_key, method.mandatory) == (exchange, routing_key, True)
    assert isinstance(header, ContentHeader)
    assert header.body_size == len(envelope.body)
    assert header.properties.content_type == "application/json"
    assert header.properties.delivery_mode == 2
    assert header.properties.message_id == envelope.message_id
    assert header.properties.message_type == envelope.type
    assert header.properties.correlation_id == envelope.key
    assert header.properties.reply_to == envelope.reply_to
    assert header.properties.headers == ({"traceparent": envelope.traceparent} if envelope.traceparent else None)
    values = [body.value for body in bodies if isinstance(body, ContentBody)]
    assert len(values) == len(bodies)
    assert all(len(value) <= 100 - frames.FRAME_OVERHEAD for value in values)
    assert b"".join(values) == envelope.body


def test_headers_go_beside_the_trace_context() -> None:
    message = Envelope(message_id="m", type="T", key="k", body=b"{}", traceparent="00-1")
    marks = {REPLAYED: "july", REPLAYED_AT: "2026-08-01"}
    _, header, *_ = unmarshal(frames.publish(7, "", "", message, frame_max=100, headers=marks))
    assert isinstance(header, ContentHeader)
    assert header.properties.headers == {"traceparent": "00-1", **marks}


@pytest.mark.parametrize(
    ("table", "is_replayed"),
    [
        (encode.field_table({REPLAYED: "july"}), True),
        (encode.field_table({"b": 1, REPLAYED: None}), True),
        (encode.field_table({"note": f"see {REPLAYED}"}), False),
        (encode.field_table({REPLAYED_AT: "2026-08-01"}), False),
        (encode.field_table({}), False),
        (b"", False),
        # It cannot be read, and may hide what it is.
        (b"\x00\x00\x00\x20\x13" + REPLAYED.encode() + b"?", True),
    ],
)
def test_history_that_is_published_again_is_told_by_its_header(table: bytes, *, is_replayed: bool) -> None:
    assert Properties(table=table).is_replayed is is_replayed


def test_what_does_not_fit_a_short_string_is_refused() -> None:
    fitting = Envelope(message_id="m", type="T", key="k", body=b"{}")
    with pytest.raises(ValueError, match="256 bytes"):
        frames.publish(1, "", "ä" * 128, fitting, frame_max=4096)
    with pytest.raises(ValueError, match="surrogates not allowed"):
        frames.publish(1, "", "\ud800", fitting, frame_max=4096)


@given(
    message_id=optional,
    message_type=optional,
    correlation_id=optional,
    content_type=optional,
    content_encoding=optional,
    headers=st.none() | headers,
    delivery_mode=st.none() | st.integers(1, 2),
    priority=st.none() | st.integers(0, 255),
    reply_to=optional,
    expiration=optional,
    timestamp=st.none() | st.datetimes(dt.datetime(1990, 1, 1), timezones=st.just(dt.UTC)),  # noqa: DTZ001 - Hypothesis wants it naive
    user_id=optional,
    app_id=optional,
    size=st.integers(0, 2**40),
)
def test_properties_read_as_the_general_codec_wrote_them(size: int, **properties: object) -> None:
    written = Basic.Properties(**properties)  # type: ignore[arg-type] # drawn by name
    data = payload(pamqp.frame.marshal(ContentHeader(body_size=size, properties=written), 7))
    read_size, read = frames.read_header(data)
    assert read_size == size
    assert (read.message_id, read.type, read.correlation_id, read.reply_to) == (
        written.message_id or None,
        written.message_type or None,
        written.correlation_id or None,
        written.reply_to or None,
    )
    assert read.headers == (written.headers or {})


@given(tag=st.integers(1, 2**63 - 1), consumer=short, redelivered=st.booleans(), exchange=st.text("abc.", max_size=20))
def test_deliveries_read_as_the_general_codec_wrote_them(
    tag: int,
    consumer: str,
    redelivered: bool,  # noqa: FBT001 - drawn by name
    exchange: str,
) -> None:
    frame = Basic.Deliver(consumer, tag, redelivered, exchange, "key")
    assert frames.read_deliver(payload(pamqp.frame.marshal(frame, 7))) == (tag, redelivered)


@given(tag=st.integers(1, 2**63 - 1), multiple=st.booleans())
def test_acks_read_as_they_were_written(tag: int, multiple: bool) -> None:  # noqa: FBT001 - drawn by name
    (ack,) = unmarshal(frames.ack(7, tag, multiple=multiple))
    assert isinstance(ack, Basic.Ack)
    assert (ack.delivery_tag, ack.multiple) == (tag, multiple)
    (reject,) = unmarshal(frames.reject(7, tag))
    assert isinstance(reject, Basic.Reject)
    assert (reject.delivery_tag, reject.requeue) == (tag, False)
    for confirm in (Basic.Ack(tag, multiple), Basic.Nack(tag, multiple, requeue=False)):
        assert frames.read_confirm(payload(pamqp.frame.marshal(confirm, 7))) == (tag, multiple)


def test_a_return_tells_its_reason() -> None:
    frame = Basic.Return(312, "NO_ROUTE", "exchange", "key")
    assert frames.read_return(payload(pamqp.frame.marshal(frame, 7))) == "NO_ROUTE"


def test_strings_that_are_no_utf8_are_kept_and_not_fatal() -> None:
    data = payload(pamqp.frame.marshal(ContentHeader(properties=Basic.Properties(correlation_id="....")), 7))
    _, properties = frames.read_header(data.replace(b"....", b"\xff\xfe\x00\x80"))
    assert properties.correlation_id == "\udcff\udcfe\x00\udc80"


def test_a_timestamp_out_of_any_calendar_is_not_fatal() -> None:
    at = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
    data = payload(pamqp.frame.marshal(ContentHeader(properties=Basic.Properties(timestamp=at, message_type="T")), 7))
    seconds = struct.pack(">Q", int(at.timestamp()))
    assert seconds in data
    _, properties = frames.read_header(data.replace(seconds, b"\xff" * 8))
    assert properties.type == "T"


@example(b"\x00\x00\x00\x20\x0btraceparent")
@example(b"\x00\x00\x00\x0f\x0btraceparentT" + b"\xff" * 8)
@given(st.binary().map(lambda noise: b"\x00\x00\x00\x0btraceparent" + noise))
def test_damaged_headers_count_for_none(table: bytes) -> None:
    assert Properties(table=table).traceparent is None
    assert isinstance(Properties(table=table).headers, dict)


@given(st.binary(max_size=40))
def test_noise_is_read_or_refused_but_nothing_else(data: bytes) -> None:
    for read in (frames.method_id, frames.read_deliver, frames.read_confirm, frames.read_return, frames.read_header):
        try:
            read(data)
        except Damaged:
            continue
