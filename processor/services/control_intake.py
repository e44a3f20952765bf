"""Takes in the app's control queue: each message becomes commands in the inbox, or a row that says why not.

One host at a time is given the messages (single active consumer), and takes them in one after the other, as a client
would: what is not stored yet comes again, and what was given is not given twice.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from random import Random
from types import TracebackType
from typing import Self
from uuid import UUID

import structlog

from holdfast.processor.broker.connection import Connection
from holdfast.processor.broker.consumer import Consumer
from holdfast.processor.broker.delivery import Delivery, check_size, refuse_replayed, salvage
from holdfast.processor.broker.topology import Topology
from holdfast.processor.client import Client
from holdfast.processor.engine.failures import STORAGE_PAUSE
from holdfast.processor.engine.provider import InboxVerdict, Intake, RouteKind
from holdfast.processor.engine.runtime import Runtime
from holdfast.projections.criteria import Criteria
from holdfast.schemas.control import Command
from holdfast.schemas.control_messages import ControlMessage, Where
from holdfast.schemas.errors import InstanceCompleted, InstanceNotFound, InvalidMessage, StorageError
from holdfast.schemas.identifiers import check_name
from holdfast.schemas.message import Envelope

log = structlog.get_logger("holdfast.control")

PREFETCH = 20
"""Control messages that a host holds at a time."""


class ControlIntake:
    """The consumer of the control queue, while the ``async with`` block lasts."""

    def __init__(self, runtime: Runtime, connection: Connection, topology: Topology, *, random: Random) -> None:
        self._runtime = runtime
        self._client = Client(runtime.settings.database_url, app=topology.app)
        self._deliveries: asyncio.Queue[Delivery] = asyncio.Queue()
        self._consumer = Consumer(
            connection,
            topology.control,
            self._deliveries.put_nowait,
            random=random,
            prefetch=PREFETCH,
            max_body_bytes=runtime.settings.max_body_bytes,
        )
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._work())
        await self._consumer.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        await self._consumer.close()
        await self._client.close()

    async def _work(self) -> None:
        while True:
            delivery = await self._deliveries.get()
            while not await self._is_settled(delivery):
                await self._runtime.environment.sleep(STORAGE_PAUSE)
            self._consumer.settle(delivery)

    async def _is_settled(self, delivery: Delivery) -> bool:
        """Take a message in; False if the store gives way, and it is to be tried again."""
        envelope = replace(salvage(delivery.properties, delivery.body), type=ControlMessage.message_type, key="")
        try:
            try:
                refuse_replayed(delivery.properties)
                check_name("message_id", delivery.properties.message_id or "")
                check_size(delivery.body, self._consumer.max_body_bytes)
                await self._take_in(envelope, ControlMessage.parse_body(delivery.body))
            except InvalidMessage as error:
                log.warning("dead letter", reason=error.reason, detail=error.detail, message_id=envelope.message_id)
                await self._keep(envelope, "dead_lettered", error.detail, error.reason)
            except StorageError:
                raise
            except Exception as error:
                # Whatever it was, those behind it are not to suffer for it.
                log.exception("control message not handled", message_id=envelope.message_id)
                await self._keep(envelope, "dead_lettered", repr(error), "attempts_exhausted")
        except StorageError as error:
            log.warning("store unreachable", error=str(error), message_id=envelope.message_id)
            return False
        return True

    async def _take_in(self, envelope: Envelope, message: ControlMessage) -> None:
        if message.where is not None:
            await self._command_all(envelope, message.where, message.to_command())
        elif message.instance_id is not None:
            await self._command(envelope, message.instance_id, message.to_command())

    async def _command(self, envelope: Envelope, instance_id: UUID, command: Command) -> None:
        unknown = InvalidMessage("unknown_instance", f"app {self._client.app} has no instance {instance_id}")
        try:
            instance, _ = await self._client.instance(instance_id)
            if instance.app != self._client.app:
                raise unknown
            await self._client.command(instance_id, command, envelope.message_id, keeps_refusal=True)
        except InstanceNotFound:
            raise unknown from None
        except InstanceCompleted as error:
            # It was deleted as it closed, so there is nobody to address the command to.
            await self._keep(envelope, "rejected", str(error), "completed")

    async def _command_all(self, envelope: Envelope, where: Where, command: Command) -> None:
        """Give a command to all that are meant; the message is a row of its own, so that it does so once."""
        known = (await self._runtime.route.put(envelope)).kind
        if known is RouteKind.REUSED:
            raise InvalidMessage("message_id_reused", "the message id came before with another body")
        if known is RouteKind.DUPLICATE:
            return
        asked = refused = 0
        criteria: Criteria = {**where.model_dump(exclude_none=True)}  # type: ignore[typeddict-item] # Where has its names
        async for given in self._client.command_all(command, envelope.message_id, **criteria):
            asked += given.refusal is None
            refused += given.refusal is not None
        await self._keep(envelope, "applied", f"{asked} instances asked, {refused} refused")

    async def _keep(self, envelope: Envelope, verdict: InboxVerdict, detail: str, reason: str | None = None) -> None:
        intake = Intake(envelope=envelope, verdict=verdict, kind="control", reason=reason, detail=detail)
        await self._runtime.take_in.put(intake)
