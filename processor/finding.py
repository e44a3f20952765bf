"""What a client asks of the instance store and the inbox: pages of them, all of them one by one, how many there are.

What comes one by one is looked up page by page, each page in a moment of its own: memory holds one page, no connection
and no transaction stays open in between, and the database may sit behind PgBouncer.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar, Unpack
from uuid import UUID

from holdfast.processor.store.connections import Connection
from holdfast.projections import inbox, queries
from holdfast.projections.criteria import Criteria, Sort
from holdfast.projections.inbox import InboxMessage, MessageTally, Verdict, VerdictCount
from holdfast.projections.queries import Instance, Tally

PAGE = 500
"""How many are looked up at a time of what comes one by one."""

T = TypeVar("T")


class Finding(ABC):
    """The part of a client that finds instances and messages by what is known of them.

    Methods raise ``InvalidQuery`` for criteria that mean nothing.
    """

    app: str | None

    @abstractmethod
    async def _run(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        """Do something on a connection."""

    async def instances(
        self,
        *,
        sort: Sort = "created",
        ascending: bool = False,
        after: Instance | UUID | None = None,
        limit: int = 100,
        **criteria: Unpack[Criteria],
    ) -> list[Instance]:
        """Return a page of the instances that fit all that is given, newest first, from behind ``after``.

        Criteria are ``workflow``, ``program_hash``, ``correlation_key``; ``execution_status``, ``outcome``,
        ``is_suspended``, ``is_initialized``, ``is_completed``; ``older_than``, ``younger_than``, ``created_since``,
        ``created_before``; ``waits_for``, ``waits_for_kind``, ``waits_for_key``, ``waits_at``; and values of
        ``promoted``. What has ended can be sorted by ``updated`` and found by ``updated_since`` and
        ``updated_before`` too.
        """
        return await self._run(
            lambda connection: queries.instances(
                connection, app=self.app, sort=sort, ascending=ascending, after=after, limit=limit, **criteria
            )
        )

    async def every_instance(
        self, *, sort: Sort = "created", ascending: bool = False, **criteria: Unpack[Criteria]
    ) -> AsyncIterator[Instance]:
        """Yield every instance that fits all that is given, as ``instances`` would give them page by page.

        One that is there and fits all the time comes once.
        """
        after: Instance | None = None
        while True:
            page = await self.instances(sort=sort, ascending=ascending, after=after, limit=PAGE, **criteria)
            for instance in page:
                yield instance
            if len(page) < PAGE:
                return
            after = page[-1]

    async def tally(self, *, workflow: str | None = None, program_hash: str | None = None) -> list[Tally]:
        """Return how many instances there are of each workflow in each condition.

        These counts are kept with every commit: looking at them costs the same however many instances there are.
        """
        return await self._run(
            lambda connection: queries.tally(connection, self.app, workflow=workflow, program_hash=program_hash)
        )

    async def messages(
        self, *, after: int | None = None, limit: int = 100, **criteria: Unpack[inbox.Criteria]
    ) -> list[InboxMessage]:
        """Return a page of the messages taken in that fit all that is given, newest first.

        It begins behind the message with the sequence ``after``. Criteria are ``verdict``, ``type``,
        ``correlation_key``, ``instance_id`` and ``since``, when they were received at the earliest.
        """
        return await self._run(
            lambda connection: inbox.messages(connection, self.app, after=after, limit=limit, **criteria)
        )

    async def every_message(self, **criteria: Unpack[inbox.Criteria]) -> AsyncIterator[InboxMessage]:
        """Yield every message taken in that fits all that is given, as ``messages`` would give them page by page."""
        after: int | None = None
        while True:
            page = await self.messages(after=after, limit=PAGE, **criteria)
            for message in page:
                yield message
            if len(page) < PAGE:
                return
            after = page[-1].sequence

    async def count_messages(self, **criteria: Unpack[inbox.Criteria]) -> list[VerdictCount]:
        """Return how many messages taken in have which verdict, of those that fit all that is given.

        They are counted when they are asked for, among what retention has left; ``message_tally`` is kept. A message
        has one row however often it was published: duplicates are not counted. One that came under the id of another
        message is counted as a message of its own.
        """
        return await self._run(lambda connection: inbox.count(connection, self.app, **criteria))

    async def message_tally(
        self,
        *,
        type: str | None = None,
        verdict: Verdict | None = None,
    ) -> list[MessageTally]:
        """Return how many messages of each type have which verdict.

        These counts are kept with every commit: looking at them costs the same however many messages there are, and
        what had a final verdict when retention removed it is among them. Duplicates and commands are not.
        """
        return await self._run(lambda connection: inbox.tally(connection, self.app, type=type, verdict=verdict))
