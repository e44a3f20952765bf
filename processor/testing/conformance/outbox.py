"""What is to be published, and by whom."""

from __future__ import annotations

from holdfast.processor.engine.provider import Loaded
from holdfast.processor.testing.conformance.harness import Store
from holdfast.processor.testing.conformance.laws import law


@law
async def the_outbox_gives_the_oldest_first_until_they_are_published(store: Store) -> None:
    host = await store.host()
    one, two = await store.register(host, "k"), await store.register(host, "l")
    messages = [one.send(), one.send(), two.send()]
    await store.commit(one.begin(outgoing=messages[:2]))
    await store.commit(two.begin(outgoing=messages[2:]))
    assert list(await store.provider.outbox(host, 10)) == messages
    assert list(await store.provider.outbox(host, 2)) == messages[:2]
    await store.provider.published([messages[0].message_id])
    assert list(await store.provider.outbox(host, 10)) == messages[1:]


@law
async def an_unroutable_message_holds_up_nobody(store: Store) -> None:
    host = await store.host()
    case = await store.register(host, "k")
    messages = [case.send(), case.send()]
    await store.commit(case.begin(outgoing=messages))
    await store.provider.unroutable(messages[0].message_id, "no queue is bound")
    assert list(await store.provider.outbox(host, 10)) == messages[1:]


# Protocol: D6.
@law("locking")
async def a_host_publishes_what_it_committed_for_as_long_as_it_lives(store: Store) -> None:
    here, there = await store.host(), await store.host()
    case = await store.register(here, "k")
    first, second = case.send(), case.send()
    await store.commit(case.begin(outgoing=[first], release=True))
    assert list(await store.provider.outbox(there, 10)) == []
    (loaded,) = await store.provider.load(there, [case.instance_id])
    assert isinstance(loaded, Loaded)
    case.host_id, case.token = there, loaded.lock_token
    await store.commit(case.move(outgoing=[second]))
    assert list(await store.provider.outbox(there, 10)) == [], "an older message of the instance is still on its way"
    assert list(await store.provider.outbox(here, 10)) == [first]
    await store.behind.lapse(here)
    assert list(await store.provider.outbox(there, 10)) == [first, second]
