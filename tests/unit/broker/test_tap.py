"""The tap between a connection and the library that reads from it."""

import asyncio
import itertools
from collections.abc import Iterable

import pamqp.frame
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp.body import ContentBody
from pamqp.commands import Basic, Channel, Connection
from pamqp.header import ContentHeader
from pamqp.heartbeat import Heartbeat

from holdfast.processor.broker.frames import Properties
from holdfast.processor.broker.tap import Listener, Tap, TappedReader

TAPPED, OTHER = 3, 4
HEARTBEAT = pamqp.frame.marshal(Heartbeat(), 0)


class Recorder(Listener):
    def __init__(self) -> None:
        self.heard: list[object] = []

    def delivered(self, tag: int, properties: Properties, body: bytes, *, redelivered: bool) -> None:
        self.heard.append((tag, properties.message_id, body, redelivered))

    def confirmed(self, tag: int, *, multiple: bool, taken: bool) -> None:
        self.heard.append(("confirmed", tag, multiple, taken))

    def returned(self, reason: str, properties: Properties) -> None:
        self.heard.append((reason, properties.message_id))

    def cancelled(self) -> None:
        self.heard.append("cancelled")

    def closing(self) -> None:
        self.heard.append("closing")


def content(channel: int, method: Basic.Deliver | Basic.Return, *chunks: bytes) -> bytes:
    properties = Basic.Properties(message_id="m")
    header = ContentHeader(body_size=sum(map(len, chunks)), properties=properties)
    return b"".join(pamqp.frame.marshal(f, channel) for f in (method, header, *map(ContentBody, chunks)))


def deliver(channel: int, tag: int, *chunks: bytes) -> bytes:
    return content(channel, Basic.Deliver("c", tag, False, "e", "k"), *chunks)


STREAM = [
    (pamqp.frame.marshal(Basic.ConsumeOk("c"), TAPPED), None),
    (deliver(TAPPED, 1, b"one"), (1, "m", b"one", False)),
    (deliver(OTHER, 1, b"other"), None),
    (deliver(TAPPED, 2, b"in ", b"pieces"), (2, "m", b"in pieces", False)),
    (HEARTBEAT, None),
    (deliver(TAPPED, 3), (3, "m", b"", False)),
    (content(TAPPED, Basic.Return(312, "NO_ROUTE", "e", "k"), b"x"), ("NO_ROUTE", "m")),
    (pamqp.frame.marshal(Basic.Ack(9, True), TAPPED), ("confirmed", 9, True, True)),
    (pamqp.frame.marshal(Basic.Nack(10, False), TAPPED), ("confirmed", 10, False, False)),
]


async def read_through(tap: Tap, chunks: Iterable[bytes], *, seconds_a_read: float = 0) -> bytes:
    """Return all that a reader behind the tap gets, byte by byte."""
    stream = asyncio.StreamReader()
    for chunk in chunks:
        stream.feed_data(chunk)
    stream.feed_eof()
    now = 0.0

    def time() -> float:
        nonlocal now
        now += seconds_a_read
        return now

    reader = TappedReader(stream, tap, time)
    read = b""
    try:
        while not reader.at_eof():
            read += await reader.readexactly(1)
    except asyncio.IncompleteReadError as error:
        read += error.partial
    return read


def ignore(reason: str | None) -> None:
    pass


@given(cuts=st.lists(st.integers(0, sum(len(data) for data, _ in STREAM)), max_size=20))
async def test_hot_frames_go_to_the_listener_and_the_rest_to_the_library(cuts: list[int]) -> None:
    whole = b"".join(data for data, _ in STREAM)
    edges = [0, *sorted(cuts), len(whole)]
    tap, recorder = Tap(ignore), Recorder()
    tap.attach(TAPPED, recorder)
    read = await read_through(tap, [whole[a:b] for a, b in itertools.pairwise(edges)])
    assert read == b"".join(data for data, heard in STREAM if heard is None)
    assert recorder.heard == [heard for _, heard in STREAM if heard is not None]


async def test_a_channel_that_nobody_listens_to_is_the_librarys() -> None:
    tap, recorder, other = Tap(ignore), Recorder(), Recorder()
    tap.attach(TAPPED, other)
    tap.attach(TAPPED, recorder)
    tap.detach(TAPPED, other)
    assert await read_through(tap, [deliver(TAPPED, 1, b"x")]) == b""
    tap.detach(TAPPED, recorder)
    assert await read_through(tap, [deliver(TAPPED, 2, b"y")]) == deliver(TAPPED, 2, b"y")
    assert recorder.heard == [(1, "m", b"x", False)]


async def test_the_end_of_a_consumer_or_channel_is_heard_at_once_and_passed_on() -> None:
    tap, recorder = Tap(ignore), Recorder()
    tap.attach(TAPPED, recorder)
    frames = [
        pamqp.frame.marshal(Basic.Cancel("c"), TAPPED),
        pamqp.frame.marshal(Channel.Close(404, "no", 60, 40), TAPPED),
    ]
    assert await read_through(tap, frames) == b"".join(frames)
    assert recorder.heard == ["cancelled", "closing"]


async def test_blocking_is_told_and_passed_on() -> None:
    told: list[str | None] = []
    frames = [
        pamqp.frame.marshal(Connection.Blocked("low on memory"), 0),
        pamqp.frame.marshal(Connection.Unblocked(), 0),
    ]
    assert await read_through(Tap(told.append), frames) == b"".join(frames)
    assert told == ["low on memory", None]


async def test_a_library_that_sees_none_of_the_traffic_is_shown_that_the_peer_lives() -> None:
    tap, recorder = Tap(ignore), Recorder()
    tap.attach(TAPPED, recorder)
    traffic = [deliver(TAPPED, tag, b"x") for tag in range(1, 4)]
    assert await read_through(tap, traffic) == b""
    assert await read_through(tap, traffic, seconds_a_read=10) == HEARTBEAT
    assert await read_through(tap, [HEARTBEAT[:3]], seconds_a_read=10) == b""


@pytest.mark.parametrize("noise", [b"AMQP\x00\x00\x09\x01", b"HTTP/1.1 400 Bad Request\r\n\r\n"])
async def test_what_is_no_frame_is_passed_on_untouched(noise: bytes) -> None:
    assert await read_through(Tap(ignore), [noise, noise]) == noise + noise
