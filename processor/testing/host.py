"""One host of a simulated world, and what becomes of the messages it is given."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

from holdfast.processor.engine.arrival import Arrival
from holdfast.processor.engine.engine import Engine
from holdfast.processor.engine.provider import Intake
from holdfast.processor.engine.runtime import Runtime
from holdfast.processor.services.detection import Detection
from holdfast.processor.testing.door import Door
from holdfast.schemas.control import Command
from holdfast.schemas.errors import AppError
from holdfast.schemas.message import Envelope, Message

if TYPE_CHECKING:
    from holdfast.processor.testing.world import World


class SimulatedHost:
    """One host: the real engine and the real detection, which looks when it is told to.

    ``door`` is how it sees the store, if somebody watches that.
    """

    def __init__(self, world: World, runtime: Runtime, door: Door | None = None) -> None:
        self.world = world
        self.runtime = runtime
        self.door = door
        self.engine = Engine(runtime)
        self.detection = Detection(self.engine)

    async def deliver(self, message: Message, message_id: str, *, redelivered: bool = False) -> Delivered:
        """Hand a message over as RabbitMQ would, and let happen what follows."""
        delivered = self.put(message.envelope(message_id), redelivered=redelivered)
        await self.world.rest()
        return delivered

    def put(self, envelope: Envelope, *, redelivered: bool = False) -> Delivered:
        """Hand a message over and return at once."""
        delivered = Delivered()
        self.engine.deliver(
            Arrival(
                envelope=envelope,
                received_at=self.runtime.now(),
                redelivered=redelivered,
                settle=delivered.settle,
            )
        )
        return delivered

    async def detect(self) -> None:
        """Look for what can run, once."""
        await self.detection.look()
        await self.world.rest()

    async def command(self, instance_id: UUID, command: str | Command) -> str:
        """Address a control command to an instance and look for it; return the id of its row in the inbox."""
        if isinstance(command, str):
            command = Command(command=command, by="tester", why="because")
        envelope = command.envelope(f"{command.command}-{self.world.new_id()}")
        await self.runtime.provider.take_in(
            [Intake(envelope=envelope, verdict="buffered", kind="control", instance_id=instance_id)]
        )
        await self.detect()
        return envelope.message_id

    @property
    def is_dead(self) -> bool:
        """Whether it died, be it of a call to the store."""
        return self.door is not None and self.door.is_dead

    async def die(self) -> None:
        """End at once, as by SIGKILL: nothing more is written, locks stay until the lease lapses."""
        if self.door is not None:
            self.door.is_dead = True
        await self.engine.abandon_all()

    async def renew(self) -> bool:
        """Renew the lease; False if it has lapsed."""
        return await self.runtime.provider.renew_host(self.runtime.host_id)


class Delivered:
    """Whether a delivery was acked."""

    def __init__(self) -> None:
        self.count = 0

    def settle(self) -> None:
        """Count an ack; a second one of one delivery would end a real channel."""
        self.count += 1
        if self.count > 1:
            raise AppError("a delivery was settled twice")

    @property
    def acked(self) -> bool:
        """Whether the broker may forget the message."""
        return self.count == 1
