"""The laws that every persistence provider keeps, as a suite for whoever writes one.

A suite for pytest, with an event loop for coroutine tests (pytest-asyncio, anyio), is a fixture and a test:

    @pytest.fixture
    async def store():
        provider = MyProvider(...)
        yield provider_conformance.Store(provider, MyLooks(provider))
        await provider.close()

    @pytest.mark.parametrize("law", provider_conformance.laws(), ids=str)
    async def test_the_provider_keeps_the_law(law, store):
        await law.check(store)

``MyLooks`` implements ``Behind``: what the laws must see or do behind the provider's door. A provider for a single host
may go without locks; ``laws(locking=False)`` leaves out those that need several hosts, or a lease that lapses.
"""

from __future__ import annotations

from holdfast.processor.testing.conformance import (
    children,
    commits,
    deposits,
    heartbeats,
    inner_subflows,
    keeping,
    locks,
    outbox,
    programs,
    registration,
    routing,
    sharing,
    units,
    wakeups,
)
from holdfast.processor.testing.conformance.harness import APP, Behind, InboxEntry, Store
from holdfast.processor.testing.conformance.laws import LAWS, Law

__all__ = ["APP", "Behind", "InboxEntry", "Law", "Store", "laws"]

_MODULES = (
    registration,
    commits,
    units,
    routing,
    wakeups,
    outbox,
    programs,
    children,
    inner_subflows,
    deposits,
    heartbeats,
    keeping,
    locks,
    sharing,
)


def laws(*, locking: bool = True) -> list[Law]:
    """Return the laws, one store each; without ``locking`` those of the core alone."""
    names = [module.__name__ for module in _MODULES]
    found = [law for law in LAWS if locking or law.level == "core"]
    return sorted(found, key=lambda law: names.index(law.check.__module__))
