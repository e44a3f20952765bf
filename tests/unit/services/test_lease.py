"""When a host holds its lease for lost."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from uuid import UUID

import pytest

from holdfast.processor.language.app import App
from holdfast.processor.services.lease import keep_lease
from holdfast.processor.testing.host import SimulatedHost
from holdfast.processor.testing.world import World
from holdfast.schemas.errors import StorageError

app = App("leased")


class Store:
    """Answers renewals as the test says."""

    def __init__(self, host: SimulatedHost) -> None:
        self.renewals = 0
        self.is_silent = False
        self.is_away = False
        self._renew = host.runtime.provider.renew_host

    async def renew_host(self, host_id: UUID) -> bool:
        self.renewals += 1
        if self.is_silent:
            await asyncio.get_running_loop().create_future()
        if self.is_away:
            raise StorageError("away")
        return await self._renew(host_id)


class Keeping:
    """A host that keeps its lease of a minute, renewed every 30 seconds."""

    def __init__(self, world: World, host: SimulatedHost) -> None:
        self.world, self.host = world, host
        self.store = Store(host)
        host.runtime.provider.renew_host = self.store.renew_host  # type: ignore[method-assign]  # The test's own.
        self.keeper = asyncio.create_task(keep_lease(host.runtime))


@pytest.fixture
async def keeping() -> AsyncIterator[Keeping]:
    world = World(app, lease=60, host_lock_renewal=30)
    keeping = Keeping(world, await world.host())
    yield keeping
    keeping.keeper.cancel()


async def test_a_lease_is_renewed_for_as_long_as_the_store_answers(keeping: Keeping) -> None:
    await keeping.world.advance(300)
    assert keeping.store.renewals == 10
    assert not keeping.keeper.done()


async def test_a_store_that_is_away_for_a_moment_costs_no_lease(keeping: Keeping) -> None:
    await keeping.world.advance(25)
    keeping.store.is_away = True
    await keeping.world.advance(30)
    keeping.store.is_away = False
    await keeping.world.advance(60)
    assert not keeping.keeper.done()


@pytest.mark.parametrize("how", ["is_silent", "is_away"])
async def test_a_lease_is_lost_when_it_has_passed_without_an_answer(how: str, keeping: Keeping) -> None:
    await keeping.world.advance(35)
    setattr(keeping.store, how, True)
    await keeping.world.advance(54)
    assert not keeping.keeper.done()
    await keeping.world.advance(3)
    assert keeping.keeper.done()


async def test_a_host_that_slept_through_its_lease_need_not_ask(keeping: Keeping) -> None:
    await keeping.world.advance(1)
    keeping.world.time += timedelta(seconds=90)
    keeping.host.runtime.doubt_lease()
    await keeping.world.rest()
    assert keeping.keeper.done()
    assert keeping.store.renewals == 0
