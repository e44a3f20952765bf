"""From the messages that a workflow sends to the rows of the outbox."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

from holdfast.processor.core.machine import Ask
from holdfast.processor.core.outcomes import Raised, Returned
from holdfast.processor.engine.asks import Asks, where
from holdfast.processor.engine.provider import Outgoing
from holdfast.processor.engine.runtime import Runtime
from holdfast.processor.engine.writer import Writer
from holdfast.processor.language.awaitables import Reply, Send
from holdfast.schemas.errors import ReplyImpossible
from holdfast.schemas.identifiers import check_name, outgoing_message_id
from holdfast.schemas.message import Envelope, Message


class Sending:
    """Sends for one instance.

    ``reply_to`` is where the sender of the message that it took last wants an answer, ``reply_key`` that message's
    correlation key, by which the sender knows what is answered.
    """

    def __init__(self, runtime: Runtime, asks: Asks, writer: Writer) -> None:
        self._runtime = runtime
        self._asks = asks
        self._writer = writer
        self.reply_to = writer.state.reply_to
        self.reply_key = writer.state.reply_key

    def hear(self, envelope: Envelope) -> None:
        """Note who sent the message that the instance takes now."""
        self.reply_to, self.reply_key = envelope.reply_to, envelope.key

    def drop(self) -> None:
        """Go back to the last persistence point."""
        self.reply_to, self.reply_key = self._writer.state.reply_to, self._writer.state.reply_key

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
        self._writer.send(where(ask), sent)
        self._asks.answer(ask, Returned())

    def _answer(self, message: Message, message_id: str) -> Outgoing:
        if self.reply_to is None:
            raise ReplyImpossible(
                "the message that the instance took last names no queue for an answer: its sender has to set reply_to"
            )
        # RabbitMQ's default exchange, the one without a name, routes to the queue of the same name.
        answer = outgoing(message, message_id, "", routing_key=self.reply_to)
        return answer if answer.key else replace(answer, key=self.reply_key)


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
