"""The suite for providers finds those that break a law, and lets those without locks keep the others."""

from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import UUID

import pytest

from holdfast.processor.engine.provider import Batch, Committed, Loaded
from holdfast.processor.store.memory import MemoryProvider
from holdfast.processor.testing.conformance import APP, Store
from holdfast.processor.testing.conformance.laws import Law
from holdfast.schemas.errors import HoldfastError
from holdfast.testing import provider_conformance
from tests.support.stores import BehindMemory


def store_of(kind: type[MemoryProvider]) -> Store:
    provider = kind(APP, lambda: datetime.now(UTC), sql=lambda _query, _parameters: None)
    return Store(provider, BehindMemory(provider))


async def broken_laws(kind: type[MemoryProvider], *, locking: bool = True) -> set[str]:
    broken = set()
    for law in provider_conformance.laws(locking=locking):
        try:
            await law.check(store_of(kind))
        except AssertionError:
            broken.add(str(law))
    return broken


class Lockless(MemoryProvider):
    """For one host: an instance is held by whoever asks for it."""

    async def load(self, host_id: UUID, instance_ids: Sequence[UUID]) -> Sequence[Loaded | HoldfastError]:
        for instance_id in instance_ids:
            if instance_id in self.tables.instances:
                self.tables.instances[instance_id].owner = host_id
        return await super().load(host_id, instance_ids)


class Forgetful(MemoryProvider):
    """Loses what a batch has to publish."""

    async def commit(self, batches: Sequence[Batch]) -> Sequence[Committed | HoldfastError]:
        answers = await super().commit(batches)
        self.tables.outbox.clear()
        return answers


class Hasty(MemoryProvider):
    """Commits a group only if nothing at all is wrong with it."""

    async def commit(self, batches: Sequence[Batch]) -> Sequence[Committed | HoldfastError]:
        before = dict(self.tables.inbox)
        answers = await super().commit(batches)
        if any(isinstance(answer, HoldfastError) for answer in answers):
            self.tables.inbox = before
        return answers


async def test_a_provider_without_locks_keeps_the_laws_of_the_core() -> None:
    assert await broken_laws(Lockless, locking=False) == set()
    assert "a held instance is locked for others" in await broken_laws(Lockless)


@pytest.mark.parametrize(
    ("kind", "law"),
    [
        (Forgetful, "the outbox gives the oldest first until they are published"),
        (Hasty, "a bad member harms no other"),
    ],
)
async def test_a_provider_that_breaks_a_law_is_found(kind: type[MemoryProvider], law: str) -> None:
    assert law in await broken_laws(kind)


def test_a_law_is_named_in_words() -> None:
    async def one_gets_what_one_gave(store: Store) -> None: ...

    assert str(Law("one_gets_what_one_gave", "core", one_gets_what_one_gave)) == "one gets what one gave"
