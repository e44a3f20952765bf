"""The few AMQP 0-9-1 frames that carry messages, read and written without a detour.

A consumed message is three frames (method, header, body) and one ack, a published one three frames and
one confirm; everything else on a connection is rare. These hot frames are coded here, because a general
codec takes many times as long over them, and because one must not fail on a header that breaks the
specification: a publisher's stray byte would then end the connection of every consumer that meets it,
again on each redelivery. Strings that are no UTF-8 therefore keep their bytes as lone surrogates
(PEP 383), for the check of the envelope to refuse; dates and the like in them are passed over unread.

Layouts: AMQP 0-9-1, sections 2.3.5 (frames), 2.3.5.2 (content) and 4.2.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import NamedTuple, Protocol

from pamqp import decode, encode
from pamqp.common import FieldTable

from holdfast.processor.tracing import Traced

METHOD, HEADER, BODY, HEARTBEAT = 1, 2, 3, 8
FRAME_END = b"\xce"
FRAME_OVERHEAD = 8
"""Bytes of a frame beside its payload: type, channel, size and the end mark."""

BASIC = 60
RETURN, DELIVER, ACK, REJECT, NACK, CANCEL = 50, 60, 80, 90, 120, 30
CHANNEL, CHANNEL_CLOSE = 20, 40
CONNECTION, CLOSE, BLOCKED, UNBLOCKED = 10, 50, 60, 61

HEAD = struct.Struct(">BHI")
_METHOD_ID = struct.Struct(">HH")
_TAG = struct.Struct(">QB")
_CONTENT = struct.Struct(">HHQH")
_ACK = struct.Struct(">BHIHHQBB")

REPLAYED = "x-holdfast-replayed"
"""The header that marks history which is published again; its value is the name of the replay."""

REPLAYED_AT = "x-holdfast-replayed-at"
"""The header with the moment at which that replay began, in ISO 8601."""

_UNDECODABLE = (ValueError, LookupError, OverflowError, OSError, RecursionError, struct.error)
"""What decoding a damaged or merely unusual field table may raise."""


class Publishable(Traced, Protocol):
    """What a message needs to be published; an ``Envelope`` has it and so has an ``Outgoing``."""

    @property
    def body(self) -> bytes:
        """The JSON body."""

    @property
    def reply_to(self) -> str | None:
        """The queue in which the sender waits for an answer, if it does."""


class Properties(NamedTuple):
    """The properties of a message that the message contract knows; None where one is missing.

    ``table`` is the undecoded table of headers, ``timestamp`` what the publisher says, in seconds since 1970.
    """

    message_id: str | None = None
    type: str | None = None
    correlation_id: str | None = None
    table: bytes = b""
    reply_to: str | None = None
    timestamp: int | None = None

    @property
    def headers(self) -> FieldTable:
        """The headers, decoded; empty if they cannot be."""
        if not self.table:
            return {}
        try:
            return decode.field_table(self.table)[1]
        except _UNDECODABLE:
            return {}

    @property
    def is_replayed(self) -> bool:
        """Whether the message is history that is published again; headers that cannot be read do not hide it."""
        if REPLAYED.encode() not in self.table:
            return False
        headers = self.headers
        return not headers or REPLAYED in headers

    @property
    def traceparent(self) -> str | None:
        """The header of that name if it is a string of a sensible length."""
        # A search at C speed, which spares most messages the decoding of their headers.
        if b"traceparent" not in self.table:
            return None
        value = self.headers.get("traceparent")
        return (
            value
            if isinstance(value, str) and 0 < len(value) <= 255 and value.isascii() and value.isprintable()
            else None
        )


class Damaged(ConnectionError):
    """A frame is cut short or holds what no AMQP peer may send; it ends the connection."""


def method_id(payload: bytes) -> tuple[int, int]:
    """Return the class and the method of a method frame."""
    try:
        return _METHOD_ID.unpack_from(payload)
    except struct.error as error:
        raise Damaged(str(error)) from None


def read_deliver(payload: bytes) -> tuple[int, bool]:
    """Return the delivery tag of a ``basic.deliver`` and whether it was delivered before."""
    try:
        tag, redelivered = _TAG.unpack_from(payload, 5 + payload[4])
    except (struct.error, IndexError) as error:
        raise Damaged(str(error)) from None
    return tag, bool(redelivered & 1)


def read_confirm(payload: bytes) -> tuple[int, bool]:
    """Return the tag of a ``basic.ack`` or ``basic.nack`` and whether it stands for all up to it."""
    try:
        tag, bits = _TAG.unpack_from(payload, 4)
    except struct.error as error:
        raise Damaged(str(error)) from None
    return tag, bool(bits & 1)


def read_return(payload: bytes) -> str:
    """Return why a message came back: the reply text of a ``basic.return``."""
    try:
        return _short(payload, 6)[0]
    except IndexError as error:
        raise Damaged(str(error)) from None


def read_close(payload: bytes) -> tuple[int, str]:
    """Return the reply code and text of a ``connection.close``."""
    try:
        return int.from_bytes(payload[4:6], "big"), _short(payload, 6)[0]
    except IndexError as error:
        raise Damaged(str(error)) from None


def read_header(payload: bytes) -> tuple[int, Properties]:
    """Return the size of the body, in bytes, and the properties."""
    try:
        _, _, size, flags = _CONTENT.unpack_from(payload)
        at = _CONTENT.size
        continued = flags
        while continued & 1:
            continued = int.from_bytes(payload[at : at + 2], "big")
            at += 2
        table = b""
        correlation_id = reply_to = message_id = type_ = timestamp = None
        if flags & 0x8000:  # content type
            at += 1 + payload[at]
        if flags & 0x4000:  # content encoding
            at += 1 + payload[at]
        if flags & 0x2000:
            end = at + 4 + int.from_bytes(payload[at : at + 4], "big")
            table = payload[at:end]
            at = end
        if flags & 0x1000:  # delivery mode
            at += 1
        if flags & 0x0800:  # priority
            at += 1
        if flags & 0x0400:
            correlation_id, at = _short(payload, at)
        if flags & 0x0200:
            reply_to, at = _short(payload, at)
        if flags & 0x0100:  # expiration
            at += 1 + payload[at]
        if flags & 0x0080:
            message_id, at = _short(payload, at)
        if flags & 0x0040:
            timestamp = int.from_bytes(payload[at : at + 8], "big")
            at += 8
        if flags & 0x0020:
            type_, at = _short(payload, at)
    except (struct.error, IndexError) as error:
        raise Damaged(str(error)) from None
    return size, Properties(message_id, type_, correlation_id, table, reply_to, timestamp)


def _short(payload: bytes, at: int) -> tuple[str, int]:
    start = at + 1
    end = start + payload[at]
    return payload[start:end].decode("utf-8", "surrogateescape"), end


def ack(channel: int, tag: int, *, multiple: bool) -> bytes:
    """Return the frame that acks a delivery, or all outstanding ones up to it."""
    return _ACK.pack(METHOD, channel, 13, BASIC, ACK, tag, multiple, 0xCE)


def reject(channel: int, tag: int) -> bytes:
    """Return the frame that gives a delivery up, so that the broker dead-letters it."""
    return _ACK.pack(METHOD, channel, 13, BASIC, REJECT, tag, 0, 0xCE)


def publish(
    channel: int,
    exchange: str,
    routing_key: str,
    message: Publishable,
    frame_max: int,
    *,
    mandatory: bool = True,
    headers: Mapping[str, str] | None = None,
) -> bytes:
    """Return the frames that publish a persistent message with a JSON body.

    A ``mandatory`` one comes back if it finds no queue. ``headers`` come beside the trace context. ``frame_max`` is the
    largest frame in bytes that the peers agreed on. Raises ``ValueError`` when a property is longer than 255 bytes or
    is not valid Unicode.
    """
    method = b"\x00<\x00(\x00\x00" + _shortstr(exchange) + _shortstr(routing_key) + bytes((mandatory,))
    flags = 0x9000 | 0x0400 | 0x0080 | 0x0020
    table = b""
    if message.traceparent or headers:
        flags |= 0x2000
        trace = {"traceparent": message.traceparent} if message.traceparent else {}
        table = encode.field_table({**trace, **(headers or {})})
    reply_to = b""
    if message.reply_to:
        flags |= 0x0200
        reply_to = _shortstr(message.reply_to)
    header = b"".join(
        (
            _CONTENT.pack(BASIC, 0, len(message.body), flags),
            b"\x10application/json",
            table,
            b"\x02",
            _shortstr(message.key),
            reply_to,
            _shortstr(message.message_id),
            _shortstr(message.type),
        )
    )
    frames = [_frame(METHOD, channel, method), _frame(HEADER, channel, header)]
    size = frame_max - FRAME_OVERHEAD
    frames += [_frame(BODY, channel, message.body[start : start + size]) for start in range(0, len(message.body), size)]
    return b"".join(frames)


def _frame(kind: int, channel: int, payload: bytes) -> bytes:
    return HEAD.pack(kind, channel, len(payload)) + payload + FRAME_END


def _shortstr(value: str) -> bytes:
    data = value.encode()
    if len(data) > 255:
        raise ValueError(f"{value[:40]!r}… has {len(data)} bytes, at most 255 are allowed")
    return bytes((len(data),)) + data
