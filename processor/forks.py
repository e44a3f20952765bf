"""Forking instances: what a client does to begin a new one where another one stood.

    fork = await client.fork(instance_id, at=7, by="ann", variables={"amount": 5}, key="A-1-again")

How a fork is written, and what it is then, stands in ``processor/forking.py``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, TypeVar
from uuid import UUID

from psycopg.rows import class_row

from holdfast.processor.store.connections import Connection
from holdfast.schemas.errors import ForkRefused, InvalidMessage
from holdfast.schemas.identifiers import check_name
from holdfast.schemas.postgres.statements import load

if TYPE_CHECKING:
    from holdfast.events.types import Json
    from holdfast.processor.forking import Fork

_SQL = load(__package__)

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class ForkedAs:
    """A fork of an instance, begun at its version ``at``, with who made it, why, and when."""

    instance_id: UUID
    at: int
    by: str
    why: str | None
    made_at: datetime


class Forks(ABC):
    """The part of a client that forks instances."""

    _new_id: Callable[[], UUID]

    @abstractmethod
    async def _run(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        """Do something on a connection."""

    async def fork(
        self,
        instance_id: UUID,
        at: int,
        *,
        by: str,
        why: str | None = None,
        key: str | None = None,
        variables: Mapping[str, Json] | None = None,
        dry_run: bool = False,
    ) -> Fork:
        """Begin a new instance where another one stood at version ``at``, which must be a persistence point.

        ``variables`` are new values, in the form in which they are stored, by name: ``[frame/]variable[.field…]``.
        ``key`` is the fork's correlation key; a fork of an instance that lives needs one of its own. With it, every
        text in a variable that is just the old key becomes the new one. ``by`` and ``why`` go into the fork's history.
        A reply of the fork goes to who asked the origin. With ``dry_run`` all is tried and nothing done. Raises
        ``InstanceNotFound``, ``VersionNotFound`` and ``ForkRefused``.
        """
        from holdfast.processor import forking

        if key is not None:
            try:
                check_name("correlation key", key)
            except InvalidMessage as error:
                raise ForkRefused(instance_id, error.detail) from None
            if key.isspace():
                raise ForkRefused(instance_id, "the correlation key is blank")
        new_id = self._new_id()
        return await self._run(
            lambda connection: forking.fork(
                connection, instance_id, at, new_id, by=by, why=why, key=key, variables=variables, dry_run=dry_run
            )
        )

    async def origin(self, instance_id: UUID) -> tuple[UUID, int] | None:
        """Return the instance that a fork came from and its version then; None for what is no fork."""
        from holdfast.events.postgres import read_stream
        from holdfast.events.types import InstanceForked

        async def work(connection: Connection) -> tuple[UUID, int] | None:
            async for recorded in read_stream(connection, instance_id, to_version=1):
                if isinstance(recorded.event, InstanceForked):
                    return UUID(recorded.event.origin), recorded.event.origin_version
            return None

        return await self._run(work)

    async def forks(self, instance_id: UUID) -> list[ForkedAs]:
        """Return the forks that were made of an instance, the oldest first; those of forks are not among them."""

        async def work(connection: Connection) -> list[ForkedAs]:
            async with connection.cursor(row_factory=class_row(ForkedAs)) as cursor:
                await cursor.execute(_SQL["forks"], {"origin": str(instance_id)})
                return await cursor.fetchall()

        return await self._run(work)
