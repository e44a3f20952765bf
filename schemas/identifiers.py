"""Identifiers: how they are made and how long they may be.

Everything here is a pure function of its arguments: time and randomness are passed in.
"""

from __future__ import annotations

from hashlib import sha256
from uuid import UUID

from holdfast.schemas.errors import InvalidMessage

MAX_NAME_BYTES = 255
"""What AMQP allows in a short string: names, keys, message ids and types stay within it."""


def uuid7(milliseconds: int, random: bytes) -> UUID:
    """Return the UUIDv7 (RFC 9562, section 5.7) of a Unix time and 10 random bytes.

    ``milliseconds`` is the Unix time in milliseconds; ``random`` supplies the 74 random bits.
    """
    value = (milliseconds & (1 << 48) - 1) << 80 | int.from_bytes(random[:10], "big")
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return UUID(int=value)


def outgoing_message_id(instance_id: UUID, version: int, index: int) -> str:
    """Return the id of the ``index``-th message that the batch at ``version`` sends.

    The same point of the same instance always gives the same id, so that receivers can drop doubles.
    """
    return f"{instance_id}:{version}:{index}"


def idempotency_key(instance_id: UUID | str, frame: str, step: int, visit: int, activity: str) -> str:
    """Return the key of one activity call, the same on every attempt."""
    return f"{instance_id}/{frame}/{step}/{visit}/{activity}"


def digest(message_type: str, key: str, body: bytes) -> bytes:
    """Return 16 bytes that tell whether two messages with one id are the same message."""
    prefix = f"{message_type}\x00{key}\x00".encode("utf-8", "surrogatepass")
    return sha256(prefix + body).digest()[:16]


def check_name(what: str, value: str) -> str:
    """Return ``value`` if it fits an AMQP short string, else raise ``InvalidMessage``.

    Reasons: ``missing_<what>`` when empty, ``invalid_<what>`` when longer than 255 bytes of UTF-8
    or when it holds a NUL, which Postgres cannot store.
    """
    if not value:
        raise InvalidMessage(f"missing_{what}", f"{what} is empty")
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        raise InvalidMessage(f"invalid_{what}", f"{what} is not valid UTF-8") from None
    if size > MAX_NAME_BYTES:
        raise InvalidMessage(f"invalid_{what}", f"{what} has {size} bytes, at most {MAX_NAME_BYTES} are allowed")
    if "\x00" in value:
        raise InvalidMessage(f"invalid_{what}", f"{what} holds a NUL character")
    return value


def storable(text: str) -> str:
    """Return ``text`` with marks in place of what a ``text`` of Postgres cannot hold: NUL and lone surrogates."""
    return text.encode("utf-8", "replace").decode().replace("\x00", "?")
