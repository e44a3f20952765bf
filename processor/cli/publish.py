"""``holdfast publish``."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Annotated

import typer

from holdfast.processor.cli.options import AmqpUrl, JsonLines, load_settings, run
from holdfast.schemas.errors import AppError, InvalidMessage

if TYPE_CHECKING:
    from holdfast.processor.client import Client
    from holdfast.schemas.message import Envelope

_TOGETHER = 500
"""Messages of an input that are under way at once."""

_Make = Callable[[bytes, str], "Envelope"]
"""Makes a message of its body and its id."""


def publish(
    app: Annotated[
        str, typer.Argument(help="The app, as module:app, or only its name.", metavar="APP", show_default=False)
    ],
    type: Annotated[str, typer.Argument(help="Type of the message.", metavar="TYPE", show_default=False)],
    body: Annotated[
        str,
        typer.Argument(help="Body in JSON; - reads one body a line.", metavar="JSON", show_default=False),
    ],
    *,
    key: Annotated[str | None, typer.Option(help="Correlation key.", metavar="KEY")] = None,
    key_field: Annotated[
        str | None, typer.Option(help="Field of the body that holds the correlation key.", metavar="FIELD")
    ] = None,
    message_id: Annotated[
        str | None, typer.Option(help="Id of the message; a new one otherwise.", metavar="ID")
    ] = None,
    amqp_url: AmqpUrl = None,
    as_json: JsonLines = False,
) -> None:
    """Publish messages to an app and print their ids.

    Given as module:app, the app is loaded and tells what the type looks like: a body that does not fit
    is refused here, and the correlation key is taken from it. Given as a name, the app is not needed
    here, the body goes out as it is, and --key or --key-field says what the correlation key is.

        holdfast publish examples.orders.app:app PaymentReceived '{"order_id": "7", "reference": "x"}'
        holdfast publish orders PaymentReceived --key 7 '{"order_id": "7", "reference": "x"}'
        holdfast publish examples.orders.app:app OrderPlaced - < orders.jsonl

    It returns when RabbitMQ has the messages safe. Workers take in only one message of an id. They carry the
    trace context that the environment variable TRACEPARENT has, if there is one.

    With --json one line for each message: message_id, type, key.
    """
    if body == "-" and message_id is not None:
        raise typer.BadParameter("--message-id is for one message: each of an input gets a new one.")
    if ":" in app and (key is not None or key_field is not None):
        raise typer.BadParameter("The app knows the correlation key: leave --key and --key-field out.")
    name, make = _validating(app, type) if ":" in app else (app, _raw(type, key, key_field))

    async def work() -> None:
        from holdfast.processor.cli.output import be_quiet
        from holdfast.processor.client import Client
        from holdfast.processor.tracing import from_process_environment

        settings = load_settings(amqp_url=amqp_url).require("amqp_url")
        be_quiet()
        with from_process_environment():
            async with Client(amqp_url=settings.amqp_url, app=name) as client:
                if body == "-":
                    await _publish_lines(client, make, as_json=as_json)
                else:
                    await _publish(client, [make(body.encode(), message_id or _new_id())], as_json=as_json)

    run(work())


def _validating(spec: str, type: str) -> tuple[str, _Make]:
    """Return the name of an app, and what makes messages of one of its types."""
    from holdfast.processor.cli.load_app import load_app

    app = load_app(spec)
    kind = app.messages.get(type)
    if kind is None:
        raise AppError(f"app {app.name} has no message type {type!r}: it has {', '.join(sorted(app.messages))}")

    def make(body: bytes, message_id: str) -> Envelope:
        envelope = kind.parse_body(body).envelope(message_id)
        return replace(envelope, body=body)

    return app.name, make


def _raw(type: str, key: str | None, key_field: str | None) -> _Make:
    """Return what makes messages without knowing their type."""
    from holdfast.schemas.identifiers import check_name
    from holdfast.schemas.message import Envelope, load_json

    if (key is None) == (key_field is None):
        raise typer.BadParameter("Without the app, either --key or --key-field is needed.")

    def make(body: bytes, message_id: str) -> Envelope:
        found = load_json(body)
        if key_field is not None and (not isinstance(found, dict) or not isinstance(found.get(key_field), str | int)):
            raise InvalidMessage("missing_correlation", f"the body has no field {key_field!r} that could be a key")
        return Envelope(
            message_id=check_name("message_id", message_id),
            type=check_name("type", type),
            key=check_name("correlation", str(found[key_field]) if key is None else key),
            body=body,
        )

    return make


async def _publish_lines(client: Client, make: _Make, *, as_json: bool) -> None:
    done = 0
    lines = enumerate(sys.stdin.buffer, 1)
    while chunk := list(islice(lines, _TOGETHER)):
        envelopes = []
        for number, line in chunk:
            if not line.strip():
                continue
            try:
                envelopes.append(make(line.strip(), _new_id()))
            except InvalidMessage as error:
                await _publish(client, envelopes, as_json=as_json)
                done += len(envelopes)
                detail = f"line {number}: {error.detail} ({done} before it were published)"
                raise InvalidMessage(error.reason, detail) from None
        await _publish(client, envelopes, as_json=as_json)
        done += len(envelopes)


async def _publish(client: Client, envelopes: list[Envelope], *, as_json: bool) -> None:
    from holdfast.processor.cli.output import emit, say

    await client.publish_all(envelopes)
    for envelope in envelopes:
        if as_json:
            emit({"message_id": envelope.message_id, "type": envelope.type, "key": envelope.key})
        else:
            say(envelope.message_id)


def _new_id() -> str:
    from holdfast.processor.engine.environment import RealEnvironment

    return str(RealEnvironment().new_id())
