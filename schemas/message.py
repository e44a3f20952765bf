"""Messages: the typed form that users declare of what travels on RabbitMQ in an envelope.

The contract for a publisher in any language is AMQP 0-9-1 with a JSON body and the properties
``type`` (message type), ``message_id`` (unique), ``correlation_id`` (correlation key) and, if there
is one, the header ``traceparent``.
"""

from __future__ import annotations

from typing import Any, ClassVar, Self, Unpack
from uuid import UUID

import orjson
from pydantic import BaseModel, ConfigDict, ValidationError

from holdfast.schemas.envelope import Envelope
from holdfast.schemas.errors import AppError, InvalidMessage
from holdfast.schemas.identifiers import check_name

__all__ = ["MAX_DEPTH", "Envelope", "Message", "load_json"]

MAX_DEPTH = 100
"""How deeply a body's arrays and objects may nest."""


class Message(BaseModel):
    """Base of every message type.

    ``class Paid(Message, correlation="order_id")`` names the field that holds the correlation key;
    ``type="shop.paid"`` gives another name than the class's own, ``exchange="billing"`` sends it to
    another exchange than the app's own. The correlation field must be a string, an integer or a UUID.
    """

    message_type: ClassVar[str] = ""
    correlation_field: ClassVar[str] = ""
    exchange: ClassVar[str | None] = None

    def __init_subclass__(
        cls,
        *,
        correlation: str | None = None,
        type: str | None = None,
        exchange: str | None = None,
        **kwargs: Unpack[ConfigDict],
    ) -> None:
        super().__init_subclass__(**kwargs)

    @classmethod
    def __pydantic_init_subclass__(
        cls,
        *,
        correlation: str | None = None,
        type: str | None = None,
        exchange: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        cls.message_type = check_name("type", type or cls.__name__)
        cls.exchange = check_name("exchange", exchange) if exchange else cls.exchange
        cls.correlation_field = correlation or cls.correlation_field
        if cls.correlation_field:
            _check_correlation(cls)

    @property
    def correlation_key(self) -> str:
        """The business value by which this message finds its instance; ``InvalidMessage`` if it is null."""
        if not self.correlation_field:
            raise AppError(
                f"message {type(self).__name__} has no correlation: declare it with "
                f"class {type(self).__name__}(Message, correlation='<field>')"
            )
        key = getattr(self, self.correlation_field)
        if key is None:
            raise InvalidMessage("missing_correlation", f"{self.correlation_field} is null")
        return str(key)

    @classmethod
    def parse(cls, envelope: Envelope) -> Self:
        """Return the validated message of an envelope, or raise ``InvalidMessage``.

        Reasons: ``not_json``, ``too_deep``, ``invalid_body``, ``missing_correlation``, ``correlation_mismatch``.
        """
        message = cls.parse_body(envelope.body)
        if cls.correlation_field and message.correlation_key != envelope.key:
            raise InvalidMessage(
                "correlation_mismatch",
                f"correlation_id is {envelope.key!r} but {cls.correlation_field} is {message.correlation_key!r}",
            )
        return message

    @classmethod
    def parse_body(cls, body: bytes) -> Self:
        """Return the validated message of a body alone, or raise ``InvalidMessage`` as ``parse`` does."""
        load_json(body)
        try:
            return cls.model_validate_json(body)
        except ValidationError as error:
            problems = "; ".join(
                f"{'.'.join(map(str, e['loc'])) or 'body'}: {e['msg']}"
                for e in error.errors(include_url=False, include_input=False)
            )
            raise InvalidMessage("invalid_body", problems[:1000]) from None
        except Exception as error:
            # A validator of the user's own that fails in a way that pydantic does not take for a refusal.
            raise InvalidMessage("invalid_body", f"{type(error).__name__}: {error}"[:1000]) from error

    def envelope(self, message_id: str, traceparent: str | None = None, reply_to: str | None = None) -> Envelope:
        """Return this message as it travels under ``message_id``; ``reply_to`` is the queue for an answer."""
        return Envelope(
            message_id=check_name("message_id", message_id),
            type=self.message_type,
            key=check_name("correlation", self.correlation_key),
            body=self.model_dump_json().encode(),
            traceparent=traceparent,
            reply_to=None if reply_to is None else check_name("reply_to", reply_to),
        )


def _check_correlation(kind: type[Message]) -> None:
    """Raise ``AppError`` if the correlation field is missing or of a type whose text is no key."""
    field = kind.model_fields.get(kind.correlation_field)
    if field is None:
        raise AppError(
            f"message {kind.__name__} correlates by {kind.correlation_field!r}, which is not one of its fields"
        )
    found = field.annotation
    if isinstance(found, type) and (found is bool or not issubclass(found, str | int | UUID)):
        raise AppError(
            f"message {kind.__name__} correlates by {kind.correlation_field!r}, which is a {found.__name__}: "
            "use a string, an integer or a UUID"
        )


def load_json(body: bytes) -> Any:
    """Return a body's JSON value, or raise ``InvalidMessage`` (``not_json``, ``too_deep``)."""
    if _depth(body) > MAX_DEPTH:
        raise InvalidMessage("too_deep", f"the body nests more than {MAX_DEPTH} levels deep")
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidMessage("not_json", str(error)) from None


def _depth(body: bytes) -> int:
    """Return an upper bound of the nesting depth; exact when it could matter.

    A body with few opening brackets cannot nest deeply, which two counts at C speed show for
    almost every message; only the rest is walked.
    """
    if body.count(b"[") + body.count(b"{") <= MAX_DEPTH:
        return 0
    depth = deepest = 0
    quoted = escaped = False
    for byte in body:
        if quoted:
            if escaped:
                escaped = False
            elif byte == 0x5C:
                escaped = True
            elif byte == 0x22:
                quoted = False
        elif byte == 0x22:
            quoted = True
        elif byte in b"[{":
            depth += 1
            deepest = max(deepest, depth)
        elif byte in b"]}":
            depth -= 1
    return deepest
