"""The AsyncAPI document of an app: what others publish to it, what it sends, and over which exchanges and queues.

Exchanges and queues are those of the topology, with the arguments that it declares them with. What AMQP has and
AsyncAPI has no word for stands in extensions: ``x-arguments`` of an exchange or queue, ``x-bound-to`` for what it is
bound to, and ``x-amqp-properties`` for the properties of a message. As in AsyncAPI's bindings, the address of a channel
is the routing key: to the exchange that its binding names, or, of a queue, to the default exchange.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from holdfast.events.event_schemas import shared_event_schemas
from holdfast.processor.broker.frames import REPLAYED, REPLAYED_AT
from holdfast.processor.broker.topology import Exchange, Queue, Topology
from holdfast.processor.language.app import App
from holdfast.schemas.activity_messages import ActivityHeartbeat, ActivityRequest, ActivityResult
from holdfast.schemas.control_messages import ControlMessage
from holdfast.schemas.message import Message
from holdfast.schemas.message_schemas import Mode, message_schemas
from holdfast.schemas.results import SubflowResult

Json = dict[str, Any]

_VERSION = {"bindingVersion": "0.3.0"}
"""Of AsyncAPI's bindings for AMQP."""

_OWN = (ActivityHeartbeat, ActivityRequest, ActivityResult, SubflowResult)
_NAME = {"type": "string", "minLength": 1, "maxLength": 255}
_ID = {**_NAME, "x-unique": True, "description": "No other message has it: a second one is a double."}
_ANY = ""
"""The routing key where none is looked at."""


def asyncapi(app: App, topology: Topology, version: str) -> Json:
    """Return the document, as JSON; ``version`` is the app's. Raises ``AppError`` as ``message_schemas``."""
    taken_in = received(app)
    sent = [kind for kind in app.messages.values() if kind not in (*taken_in, *_OWN)]
    page = _Page()
    page.exchange("intake", topology.plain_exchanges[0], _ANY)
    page.operation("takeIn", "receive", "intake", taken_in, "Publish here; the routing key is ignored.")
    _send(page, topology, sent)
    if topology.requests is not None:
        page.exchange("activities", topology.requests, "{queue}", queue={"enum": [*topology.activities]})
        text = "Asks activity workers to run activities; the routing key is the queue as the app calls it."
        page.operation("request", "send", "activities", [ActivityRequest], text)
        text = "How activities on queues go on and how they ended."
        page.operation("takeResults", "receive", "intake", [ActivityResult, ActivityHeartbeat], text)
    page.events("events", topology.feed)
    for exchange in (*topology.plain_exchanges[1:], *filter(None, (topology.ring,))):
        page.exchange(exchange.name, exchange, _ANY)
    partitions = [topology.partition_queue(number) for number in range(topology.partitions)]
    for queue in (*partitions, topology.dead_queue, topology.control_queue, *topology.request_queues):
        page.queue(f"queue {queue.name}", queue)
    text = "Commands to instances; publish to RabbitMQ's default exchange, the routing key is the queue."
    page.operation("command", "receive", f"queue {topology.control}", [ControlMessage], text)
    return {
        "asyncapi": "3.0.0",
        "info": {"title": app.name, "version": version, "description": f"The messages of the Holdfast app {app.name}."},
        "defaultContentType": "application/json",
        **page.parts(),
    }


def received(app: App) -> list[type[Message]]:
    """Return the types that the app's workflows and routines start with or wait for, in the order of their names."""
    names = {*app.starts}
    for definition in (*app.workflows.values(), *(routine.definition for routine in app.routines.values())):
        names.update(definition.receives)
    return [app.messages[name] for name in sorted(names) if name in app.messages and app.messages[name] not in _OWN]


def _send(page: _Page, topology: Topology, sent: Sequence[type[Message]]) -> None:
    out = next(each for each in topology.plain_exchanges if each.name == topology.out)
    text = "What workflows send; the routing key is the message type."
    kinds = [kind for kind in sent if kind.exchange is None]
    page.exchange("out", out, "{type}", type=_type_of(kinds))
    page.operation("send", "send", "out", kinds, text)
    for name in dict.fromkeys(kind.exchange for kind in sent if kind.exchange is not None):
        # Whose exchange it is, and of which kind, is not for this app to say.
        kinds = [kind for kind in sent if kind.exchange == name]
        binding = {"is": "routingKey", "exchange": {"name": name}}
        page.channel(f"to {name}", "{type}", binding, type=_type_of(kinds))
        page.operation(f"send to {name}", "send", f"to {name}", kinds, text)


def _type_of(kinds: Sequence[type[Message]]) -> Json:
    names = {"enum": [kind.message_type for kind in kinds]} if kinds else {}
    return {"description": "The message type.", **names}


class _Page:
    """The document while it is put together; names become keys that AsyncAPI allows."""

    def __init__(self) -> None:
        self._channels: dict[str, Json] = {}
        self._operations: dict[str, Json] = {}
        self._kinds: dict[str, tuple[type[Message], Mode]] = {}
        self._events: Json = {}
        self._definitions: Json = {}
        self._exchanges: set[str] = set()

    def exchange(self, name: str, exchange: Exchange, routing_key: str, **parameters: Json) -> None:
        """Add an exchange, unless it is there, with the routing key, and what stands for its parameters."""
        if exchange.name in self._exchanges:
            return
        self._exchanges.add(exchange.name)
        described = {"name": exchange.name, "type": exchange.kind, "durable": True, "autoDelete": False}
        if exchange.kind.startswith("x-"):
            # AsyncAPI knows the kinds that the specification of AMQP has.
            described["type"] = "default"
            described["x-type"] = exchange.kind
        extra = {"x-arguments": dict(exchange.arguments)} if exchange.arguments else {}
        if exchange.source is not None:
            extra["x-bound-to"] = {"exchange": exchange.source}
        self.channel(name, routing_key, {"is": "routingKey", "exchange": {**described, **extra}}, **parameters)

    def queue(self, name: str, queue: Queue) -> None:
        """Add a queue."""
        described: Json = {"name": queue.name, "durable": True, "exclusive": False, "autoDelete": False}
        described["x-arguments"] = dict(queue.arguments)
        if queue.source is not None:
            described["x-bound-to"] = {"exchange": queue.source, "routingKey": queue.routing_key}
        self.channel(name, queue.name, {"is": "queue", "queue": described})

    def channel(self, name: str, address: str, binding: Json, **parameters: Json) -> None:
        """Add a channel."""
        described = {"address": address, "bindings": {"amqp": {**binding, **_VERSION}}}
        self._channels[_key(name)] = described | ({"parameters": parameters} if parameters else {})

    def operation(self, name: str, action: str, channel: str, kinds: Sequence[type[Message]], text: str) -> None:
        """Add what the app does on a channel, unless there is no message that it does it with."""
        if not kinds:
            return
        for kind in kinds:
            self._kinds[_key(kind.message_type)] = (kind, "validation" if action == "receive" else "serialization")
        self._operate(name, action, channel, [_key(kind.message_type) for kind in kinds], text)

    def events(self, channel: str, exchange: Exchange) -> None:
        """Add the committed events, as workers publish them where the feed is switched on."""
        parts: Json = {part: {"location": f"$message.payload#/{part}"} for part in ("workflow", "type")}
        self.exchange(channel, exchange, "{workflow}.{type}", **parts)
        schemas, definitions = shared_event_schemas("#/components/schemas/event.{model}")
        self._definitions = {f"event.{name}": each for name, each in definitions.items()}
        self._events = {f"event.{name}": _event(name, schema) for name, schema in schemas.items()}
        text = "Committed events, with HOLDFAST_EVENT_FEED; the routing key is <workflow>.<event type>."
        self._operate("publishEvents", "send", channel, list(self._events), text, mandatory=False)

    def _operate(
        self, name: str, action: str, channel: str, messages: Sequence[str], text: str, *, mandatory: bool = True
    ) -> None:
        known = self._channels[_key(channel)].setdefault("messages", {})
        known |= {key: {"$ref": f"#/components/messages/{key}"} for key in messages}
        self._operations[_key(name)] = {
            "action": action,
            "channel": {"$ref": f"#/channels/{_key(channel)}"},
            "description": text,
            "messages": [{"$ref": f"#/channels/{_key(channel)}/messages/{key}"} for key in messages],
            "bindings": {"amqp": {"deliveryMode": 2, "mandatory": mandatory, **_VERSION}},
        }

    def parts(self) -> Json:
        """Return the channels, operations and components."""
        references, definitions = message_schemas([*self._kinds.values()], "#/components/schemas/{model}")
        messages = {key: _message(kind, references[kind, mode]) for key, (kind, mode) in self._kinds.items()}
        return {
            "channels": self._channels,
            "operations": self._operations,
            "components": {"messages": messages | self._events, "schemas": definitions | self._definitions},
        }


def _message(kind: type[Message], payload: Mapping[str, Any]) -> Json:
    name = kind.message_type
    message: Json = {
        "name": name,
        "title": name,
        "contentType": "application/json",
        "payload": payload,
        "headers": {"type": "object", "properties": {"traceparent": {"type": "string"}}},
        "bindings": {"amqp": {"messageType": name, **_VERSION}},
        "x-amqp-properties": _properties(name, has_key=bool(kind.correlation_field)),
    }
    if kind.correlation_field:
        message["correlationId"] = {
            "description": "The correlation key: the property correlation_id has the same value, as text.",
            "location": f"$message.payload#/{kind.correlation_field}",
        }
    return message


def _properties(name: str, *, has_key: bool) -> Json:
    """Return the schema of the properties of a message, by their names in AMQP."""
    return {
        "type": "object",
        "properties": {"type": {"const": name}, "message_id": _ID, "correlation_id": _NAME, "reply_to": _NAME},
        "required": ["type", "message_id", *(["correlation_id"] if has_key else [])],
    }


def _event(name: str, data: Mapping[str, Any]) -> Json:
    text, moment = {"type": "string"}, {"type": "string", "format": "date-time"}
    headers = {
        "traceparent": text,
        REPLAYED: {**text, "description": "The replay that published it again; absent from what happens now."},
        REPLAYED_AT: {**moment, "description": "When that replay began."},
    }
    properties: Json = {
        "instance_id": {"type": "string", "format": "uuid"},
        "version": {"type": "integer", "minimum": 1},
        "type": {"const": name},
        "app": text,
        "workflow": text,
        "cursor": text,
        "recorded_at": moment,
        "data": data,
        "metadata": {"type": "object"},
    }
    return {
        "name": name,
        "title": name,
        "contentType": "application/json",
        "payload": {"type": "object", "properties": properties, "required": list(properties)},
        "headers": {"type": "object", "properties": headers},
        "correlationId": {"description": "The instance.", "location": "$message.payload#/instance_id"},
        "bindings": {"amqp": {"messageType": name, **_VERSION}},
        "x-amqp-properties": _properties(name, has_key=True),
    }


def _key(name: str) -> str:
    """Return a name in the letters that AsyncAPI has for keys; another one becomes the number that Unicode gives it."""
    return re.sub(r"[^\w. -]", lambda found: f"_{ord(found[0]):x}_", name, flags=re.ASCII).replace(" ", "_")
