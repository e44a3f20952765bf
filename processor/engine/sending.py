"""From the messages that a workflow sends to the rows of the outbox."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

from holdfast.processor.core.machine import Ask
from holdfast.processor.core.outcomes import Raised, Returned
from holdfast.processor.engine.asks import Asks
from holdfast.processor.engine.provider import Outgoing
from holdfast.processor.engine.runtime import Runtime
from holdfast.processor.engine.writer import Writer
from holdfast.processor.language.awaitables import Reply, Send
from holdfast.projections.instance import InstanceState, fold
from holdfast.schemas.errors import ReplyImpossible
from holdfast.schemas.identifiers import check_name, outgoing_message_id
from holdfast.schemas.message import Message


class Sending:
    """Sends for one instance."""

    def __init__(self, runtime: Runtime, asks: Asks, writer: Writer) -> None:
        self._runtime = runtime
        self._asks = asks
        self._writer = writer

    @property
    def reply_to(self) -> str | None:
        """Where the sender of the message that the instance took last wants an answer."""
        return self._state().reply_to

    def serve(self, ask: Ask) -> None:
        """Put a message into the batch, and answer."""
        awaited = cast("Send | Reply", ask.awaited)
        message_id = outgoing_message_id(
            self._writer.instance_id, self._writer.state.version + 1, len(self._writer.unwritten.outgoing)
        )
        try:
            if isinstance(awaited, Reply):
                sent = self._answer(awaited.message, message_id)
            else:
                sent = outgoing(awaited.message, message_id, self._runtime.out_exchange)
        except Exception as error:  # noqa: BLE001  What a message cannot say of itself is the sender's error.
            self._asks.answer(ask, Raised(error))
            return
        self._writer.send(ask.where, sent)
        self._asks.answer(ask, Returned())

    def _answer(self, message: Message, message_id: str) -> Outgoing:
        state = self._state()
        if state.reply_to is None:
            raise ReplyImpossible(
                "the message that the instance took last names no queue for an answer: its sender has to set reply_to"
            )
        # RabbitMQ's default exchange, the one without a name, routes to the queue of the same name.
        answer = outgoing(message, message_id, "", routing_key=state.reply_to)
        return answer if answer.key else replace(answer, key=state.reply_key)

    def _state(self) -> InstanceState:
        # A message that a failed transaction gave back has left the batch, and was not taken.
        return fold(self._writer.unwritten.events, self._writer.state)


def outgoing(message: Message, message_id: str, exchange: str, routing_key: str | None = None) -> Outgoing:
    """Return what is to be published; raises what the message cannot say of itself.

    ``exchange`` is where messages go whose type names no exchange of its own, or whose ``routing_key`` is given.
    """
    return Outgoing(
        message_id=message_id,
        exchange=exchange if routing_key is not None else message.exchange or exchange,
        routing_key=message.message_type if routing_key is None else routing_key,
        type=message.message_type,
        key=check_name("correlation", message.correlation_key) if message.correlation_field else "",
        body=message.model_dump_json().encode(),
    )
