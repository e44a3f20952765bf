"""What becomes of messages, as the inbox says it: every message that was published has one verdict."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from datetime import timedelta
from random import Random

import pytest

from holdfast import App, Client, Message, Retention, receive
from holdfast.schemas.message import Envelope
from holdfast.schemas.settings import Settings
from tests.support.commands import holdfast
from tests.support.hosts import Host, running_host
from tests.support.workers import environment

app = App("verdicts")


class Begun(Message, correlation="key"):
    key: str
    note: str = ""


class Came(Message, correlation="key"):
    key: str


class Failing(Message, correlation="key"):
    key: str


@app.workflow(start=Begun)
async def begun(start: Begun) -> None:
    await receive(Came, start.key)


@app.workflow(start=Failing, on_unhandled="abandon")
async def failing(start: Failing) -> None:
    raise ValueError(start.key)


@pytest.fixture
async def host(database_url: str) -> AsyncIterator[Host]:
    async with running_host(app, database_url, Settings(max_attempts=1)) as host:
        yield host


@pytest.fixture
async def client(database_url: str) -> AsyncIterator[Client]:
    async with Client(database_url, app=app.name) as client:
        yield client


async def expire(host: Host) -> None:
    """Let the messages grow old that nobody is there for."""
    await host.ask("update holdfast.inbox set received_at = now() - interval '30 days' where verdict = 'buffered'")
    await host.runtime.provider.expire(host.runtime.settings.message_ttl, 1000)


def mixed(random: Random) -> list[Envelope]:
    """Return messages of all fates in an order of their own, some of them twice, one id for two messages."""
    envelopes: list[Envelope] = []
    for number in range(12):
        key = f"k{number}"
        envelopes.append(Begun(key=key).envelope(f"{key}/begun"))
        envelopes += [Came(key=key).envelope(f"{key}/came/{again}") for again in range(number % 3)]
    envelopes += [Came(key=f"nobody-{number}").envelope(f"early-{number}") for number in range(3)]
    envelopes += [Failing(key=f"f{number}").envelope(f"failing-{number}") for number in range(2)]
    envelopes += [
        Envelope(message_id="no-json", type="Came", key="k1", body=b"{"),
        Envelope(message_id="no-such-type", type="Gone", key="k1", body=b"{}"),
        Begun(key="k2", note="another message").envelope("k2/begun"),
    ]
    envelopes += random.sample(envelopes, 8)
    random.shuffle(envelopes)
    return envelopes


def counted(database_url: str) -> Counter[str]:
    """Return how many messages have which verdict, as the command line says."""
    done = holdfast("messages", "--count", "--app", app.name, "--json", env=environment(database_url, ""))
    assert done.returncode == 0, done.stderr
    by_verdict = Counter[str]()
    for line in done.stdout.splitlines():
        each = json.loads(line)
        by_verdict[each["verdict"]] += each["messages"]
    return by_verdict


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_the_final_verdicts_add_up_to_the_distinct_messages_published(
    host: Host, client: Client, database_url: str, seed: int
) -> None:
    published = mixed(Random(seed))  # noqa: S311  A seed is to give the same messages again.
    distinct = {(e.message_id, e.type, e.key, e.body) for e in published}
    for number, envelope in enumerate(published):
        await host.hear(envelope)
        if number == len(published) // 2:
            await expire(host)
    await expire(host)
    early = [Came(key=f"not-yet-{number}").envelope(f"still-early-{number}") for number in range(4)]
    for envelope in [*early, early[0]]:
        await host.hear(envelope)
    tally = await client.count_messages()
    by_verdict = Counter[str]()
    for each in tally:
        assert each.kind == "message"
        by_verdict[each.verdict] += each.messages
    assert by_verdict.total() == len(distinct) + len(early) < len(published) + len(early)
    assert by_verdict.keys() == {"applied", "buffered", "rejected", "expired", "dead_lettered"}
    # Only what waits for its time is not final: those for whom nobody is there yet, once however often they came.
    assert by_verdict["buffered"] == len(early)
    assert Counter(m.verdict for m in await client.messages(limit=1000)) == by_verdict
    assert await asyncio.to_thread(counted, database_url) == by_verdict

    kept = await client.message_tally()
    by_type = Counter((m.type, m.verdict) for m in await client.messages(limit=1000))
    assert {(it.type, it.verdict): it.messages for it in kept} == by_type
    at_once = timedelta()
    await client.apply_retention(Retention(inbox=at_once, dead_letters=at_once))
    left = {it.verdict for it in await client.count_messages()}
    assert left == {"buffered", "dead_lettered"}  # Dead is the start of who was never persisted, which stays.
    assert await client.message_tally() == kept


async def test_messages_are_found_by_what_is_known_of_them(host: Host, client: Client) -> None:
    instance_id = await host.deliver(Begun(key="k"))
    await host.hear(Came(key="nobody").envelope("early"))
    (before,) = await host.ask("select clock_timestamp()")
    await host.hear(Came(key="k").envelope("came"))
    await host.hear(Came(key="k").envelope("came"))
    await host.hear(Came(key="k").envelope("late"))

    async def found(**criteria: object) -> list[str]:
        return [m.message_id for m in await client.messages(**criteria)]  # type: ignore[arg-type]  # Each test's own.

    assert await found() == ["late", "came", "early", "Begun/k"]
    assert await found(verdict="applied") == ["came", "Begun/k"]
    assert await found(type="Came", correlation_key="k") == ["late", "came"]
    assert await found(instance_id=instance_id) == ["late", "came", "Begun/k"]
    assert await found(since=before[0]) == ["late", "came"]
    late, came = await client.messages(limit=2)
    assert (late.verdict, late.reason, late.size) == ("rejected", "completed", None)
    assert (came.instance_id, came.version) == (instance_id, 6)
    rest = await client.messages(after=came.sequence)
    assert [(m.message_id, m.size) for m in rest] == [("early", 16), ("Begun/k", None)]
    async with Client(client._database_url, app="another") as stranger:
        assert await stranger.messages() == []


async def test_commands_are_counted_apart(host: Host, client: Client) -> None:
    instance_id = await host.deliver(Begun(key="k"))
    await client.suspend(instance_id, by="ann")
    tally = await client.count_messages()
    assert [(t.kind, t.verdict, t.messages) for t in tally] == [("message", "applied", 1), ("control", "buffered", 1)]
    assert [(t.type, t.verdict, t.messages) for t in await client.message_tally()] == [("Begun", "applied", 1)]
