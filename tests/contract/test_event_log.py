"""What every event log promises, shown on each adapter."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from holdfast.events import postgres
from holdfast.events.log import Append, EventLog, Expected, ExpectedVersion, HorizonLag, Page
from holdfast.events.memory import MemoryEventLog
from holdfast.events.recorded import Cursor, RecordedEvent
from holdfast.events.types import Event, InstanceCompleted, InstanceResumed
from holdfast.schemas.errors import StaleTransaction, WrongExpectedVersion
from tests.support.events import EVERY_TYPE

ANY, NO_STREAM, STREAM_EXISTS = Expected.ANY, Expected.NO_STREAM, Expected.STREAM_EXISTS


@dataclass(frozen=True)
class Adapter:
    log: EventLog[Any]
    transaction: Callable[[], AbstractAsyncContextManager[Any]]


@pytest.fixture(params=["memory", "postgres"])
def adapter(request: pytest.FixtureRequest) -> Adapter:
    if request.param == "memory":
        memory = MemoryEventLog(now=lambda: datetime.now(UTC))
        return Adapter(memory, memory.transaction)
    url: str = request.getfixturevalue("database_url")

    @asynccontextmanager
    async def transaction() -> AsyncIterator[psycopg.AsyncConnection]:
        async with await psycopg.AsyncConnection.connect(url) as connection:
            yield connection

    return Adapter(postgres, transaction)


def some(count: int = 1, by: str = "ops") -> list[Event]:
    return [InstanceResumed(by=by, why=str(number)) for number in range(count)]


async def append(
    adapter: Adapter, stream: UUID, events: list[Event] | None = None, expected: ExpectedVersion = ANY
) -> Cursor:
    """Append in a transaction of its own."""
    async with adapter.transaction() as connection:
        return await adapter.log.append(connection, stream, expected, events or some())


async def read(adapter: Adapter, stream: UUID, first: int = 1, last: int | None = None) -> list[RecordedEvent]:
    async with adapter.transaction() as connection:
        return [event async for event in adapter.log.read_stream(connection, stream, first, last)]


async def read_all(adapter: Adapter, after: Cursor | None = None) -> list[RecordedEvent]:
    async with adapter.transaction() as connection:
        events, _ = await adapter.log.read_all(connection, after)
        return list(events)


async def settle(adapter: Adapter) -> None:
    """Wait until the safe horizon has passed all events: the server's own chores may hold it back for a moment."""
    lag = 1
    while lag:
        async with adapter.transaction() as connection:
            lag = (await adapter.log.horizon_lag(connection)).events


async def test_a_stream_gives_back_what_was_appended(adapter: Adapter) -> None:
    stream = uuid4()
    async with adapter.transaction() as connection:
        last = await adapter.log.append(connection, stream, NO_STREAM, EVERY_TYPE, {"host": "h-1"})
    recorded = await read(adapter, stream)
    assert [it.event for it in recorded] == list(EVERY_TYPE)
    assert [it.version for it in recorded] == list(range(1, len(EVERY_TYPE) + 1))
    assert {it.instance_id for it in recorded} == {stream}
    assert recorded[-1].cursor == last
    assert [it.cursor for it in recorded] == sorted(it.cursor for it in recorded)
    assert len({it.cursor.xid for it in recorded}) == 1
    assert all(it.metadata == {"host": "h-1"} for it in recorded)
    assert [it.recorded_at for it in recorded] == sorted(it.recorded_at for it in recorded)
    assert all(it.recorded_at.tzinfo is not None for it in recorded)


async def test_a_part_of_a_stream_is_read_with_both_ends(adapter: Adapter) -> None:
    stream = uuid4()
    await append(adapter, stream, some(2345))
    assert [it.version for it in await read(adapter, stream, 2)] == list(range(2, 2346))
    assert [it.version for it in await read(adapter, stream, 2, 4)] == [2, 3, 4]
    assert await read(adapter, stream, 2346) == []
    assert await read(adapter, stream, 4, 2) == []
    assert await read(adapter, uuid4()) == []


@pytest.mark.parametrize(
    ("length", "expected", "fits"),
    [
        (0, NO_STREAM, True),
        (2, NO_STREAM, False),
        (0, STREAM_EXISTS, False),
        (2, STREAM_EXISTS, True),
        (0, ANY, True),
        (2, ANY, True),
        (0, 0, True),
        (2, 0, False),
        (2, 1, False),
        (2, 2, True),
        (2, 3, False),
        (0, 1, False),
    ],
)
async def test_an_append_fits_the_expected_version_or_is_refused(
    adapter: Adapter, length: int, expected: ExpectedVersion, *, fits: bool
) -> None:
    stream = uuid4()
    if length:
        await append(adapter, stream, some(length))
    if fits:
        await append(adapter, stream, some(3), expected)
        assert [it.version for it in await read(adapter, stream)] == list(range(1, length + 4))
    else:
        with pytest.raises(WrongExpectedVersion) as refused:
            await append(adapter, stream, some(3), expected)
        assert (refused.value.instance_id, refused.value.expected, refused.value.actual) == (stream, expected, length)
        assert len(await read(adapter, stream)) == length


async def test_a_refused_append_lets_the_transaction_go_on(adapter: Adapter) -> None:
    stream, other = uuid4(), uuid4()
    async with adapter.transaction() as connection:
        await adapter.log.append(connection, stream, NO_STREAM, some(2))
        with pytest.raises(WrongExpectedVersion):
            await adapter.log.append(connection, stream, NO_STREAM, some())
        await adapter.log.append(connection, stream, 2, some())
        await adapter.log.append(connection, other, NO_STREAM, some())
    assert len(await read(adapter, stream)) == 3
    assert len(await read(adapter, other)) == 1


async def test_many_appends_are_answered_one_by_one(adapter: Adapter) -> None:
    old, wrong, new = uuid4(), uuid4(), uuid4()
    await append(adapter, old, some(2))
    async with adapter.transaction() as connection:
        answers = await adapter.log.append_many(
            connection,
            [
                Append(instance_id=old, expected=2, events=some(3, "a"), metadata={"n": 1}),
                Append(instance_id=wrong, expected=5, events=some(2, "b")),
                Append(instance_id=new, expected=NO_STREAM, events=some(1, "c"), metadata={"n": 3}),
            ],
        )
    assert isinstance(answers[1], WrongExpectedVersion)
    assert answers[1].actual == 0
    assert await read(adapter, wrong) == []
    for stream, answer, length, number in ((old, answers[0], 5, 1), (new, answers[2], 1, 3)):
        recorded = await read(adapter, stream)
        assert (len(recorded), recorded[-1].cursor, recorded[-1].metadata) == (length, answer, {"n": number})


async def test_what_is_rolled_back_never_happened(adapter: Adapter) -> None:
    stream = uuid4()

    async def fail_after_the_append() -> None:
        async with adapter.transaction() as connection:
            await adapter.log.append(connection, stream, NO_STREAM, some())
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail_after_the_append()
    assert await read(adapter, stream) == []
    await append(adapter, stream, expected=NO_STREAM)
    await settle(adapter)
    assert len(await read_all(adapter)) == 1


async def test_only_its_own_transaction_sees_what_is_not_committed(adapter: Adapter) -> None:
    stream = uuid4()
    async with adapter.transaction() as connection:
        await adapter.log.append(connection, stream, NO_STREAM, some(2))
        assert len([it async for it in adapter.log.read_stream(connection, stream)]) == 2
        assert await read(adapter, stream) == []
    assert len(await read(adapter, stream)) == 2


async def test_of_two_writers_at_once_one_wins(adapter: Adapter) -> None:
    stream = uuid4()
    async with adapter.transaction() as connection:
        await adapter.log.append(connection, stream, NO_STREAM, some(2))
        second = asyncio.create_task(append(adapter, stream, expected=NO_STREAM))
        anywhere = asyncio.create_task(append(adapter, stream, expected=ANY))
        await asyncio.sleep(0)
    with pytest.raises(WrongExpectedVersion):
        await second
    await anywhere
    assert [it.version for it in await read(adapter, stream)] == [1, 2, 3]


async def test_no_reader_skips_an_earlier_position_that_commits_last(adapter: Adapter) -> None:
    early, late = uuid4(), uuid4()
    async with adapter.transaction() as connection:
        first = await adapter.log.append(connection, early, NO_STREAM, some())
        second = await append(adapter, late)
        assert first.position < second.position
        assert await read_all(adapter) == []
        async with adapter.transaction() as reader:
            lag = await adapter.log.horizon_lag(reader)
        assert lag.events == 1
        assert lag.seconds >= 0
    await settle(adapter)
    assert [it.cursor for it in await read_all(adapter)] == [first, second]
    async with adapter.transaction() as reader:
        assert await adapter.log.horizon_lag(reader) == HorizonLag(0, 0.0)


async def test_the_whole_log_is_read_transaction_by_transaction(adapter: Adapter) -> None:
    one, two, three = uuid4(), uuid4(), uuid4()
    async with adapter.transaction() as connection:
        await adapter.log.append(connection, one, NO_STREAM, some())
        await append(adapter, two)
        last = await adapter.log.append(connection, three, NO_STREAM, some())
    await settle(adapter)
    events = await read_all(adapter)
    assert [it.instance_id for it in events] == [one, three, two]
    assert last.position > events[-1].cursor.position


async def test_an_append_in_a_transaction_older_than_the_last_is_to_be_run_again(adapter: Adapter) -> None:
    stream, other = uuid4(), uuid4()
    async with adapter.transaction() as old:
        await adapter.log.append(old, other, NO_STREAM, some())
        await append(adapter, stream)
        with pytest.raises(StaleTransaction):
            await adapter.log.append(old, stream, 1, some())
        (answer,) = await adapter.log.append_many(old, [Append(instance_id=stream, expected=1, events=some())])
        assert isinstance(answer, StaleTransaction)
    await append(adapter, stream, expected=1)
    recorded = await read(adapter, stream)
    assert [it.version for it in recorded] == [1, 2]
    assert recorded[0].cursor.xid < recorded[1].cursor.xid


async def test_a_reader_goes_on_from_the_cursor_that_it_was_given(adapter: Adapter) -> None:
    for _ in range(3):
        await append(adapter, uuid4(), some(2))
    await settle(adapter)
    seen: list[RecordedEvent] = []
    after: Cursor | None = None
    async with adapter.transaction() as connection:
        while True:
            events, after = await adapter.log.read_all(connection, after, limit=4)
            seen += events
            if not events:
                break
            assert after == events[-1].cursor
            after = Cursor.parse(str(after))
    assert seen == await read_all(adapter)
    assert [it.version for it in seen] == [1, 2, 1, 2, 1, 2]
    assert after == seen[-1].cursor


async def test_the_whole_log_is_read_page_by_page(adapter: Adapter) -> None:
    first = await append(adapter, uuid4(), some(3))
    await append(adapter, uuid4(), some(4))
    await settle(adapter)
    async with adapter.transaction() as connection:
        pages = [page async for page in adapter.log.read_log(connection, limit=3)]
        rest = [page async for page in adapter.log.read_log(connection, first)]
    assert [len(page) for page in pages] == [3, 3, 1]
    assert [it for page in pages for it in page] == await read_all(adapter)
    assert rest == [await read_all(adapter, first)]


async def test_who_stops_reading_the_log_goes_on_in_the_same_transaction(adapter: Adapter) -> None:
    stream = uuid4()
    await append(adapter, stream, some(9))
    await settle(adapter)
    async with adapter.transaction() as connection:
        async with aclosing(adapter.log.read_log(connection, limit=2)) as pages:
            async for page in pages:
                assert [it.version for it in page] == [1, 2]
                break
        await adapter.log.append(connection, stream, 9, some())
    assert [it.version for it in await read(adapter, stream)] == [*range(1, 11)]


async def test_what_is_done_to_the_metadata_of_an_event_is_done_to_no_other(adapter: Adapter) -> None:
    async with adapter.transaction() as connection:
        await adapter.log.append(connection, uuid4(), ANY, some(2), {"app": "shop"})
    await settle(adapter)
    one, other = await read_all(adapter)
    assert isinstance(one.metadata, dict)
    one.metadata["app"] = "another"
    assert other.metadata == {"app": "shop"}
    assert [it.metadata for it in await read_all(adapter)] == [{"app": "shop"}, {"app": "shop"}]


async def test_an_empty_log_gives_nothing_to_go_on_from(adapter: Adapter) -> None:
    async with adapter.transaction() as connection:
        assert await adapter.log.read_all(connection) == ([], None)
        assert await adapter.log.horizon_lag(connection) == HorizonLag(0, 0.0)


@pytest.mark.parametrize("seed", range(5))
async def test_readers_between_writers_see_every_event_once_and_in_order(adapter: Adapter, seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 - it shuffles the steps of a test
    streams = [uuid4() for _ in range(20)]
    seen: list[RecordedEvent] = []
    after: Cursor | None = None
    writers: list[tuple[Any, AsyncExitStack, set[UUID]]] = []
    for _ in range(60):
        match chance.choice(["begin", "append", "append", "end", "read"]):
            case "begin" if len(writers) < 3:
                stack = AsyncExitStack()
                writers.append((await stack.enter_async_context(adapter.transaction()), stack, set()))
            case "append" if writers:
                connection, _, own = chance.choice(writers)
                held = set[UUID]().union(*(others for other, _, others in writers if other is not connection))
                stream = chance.choice([stream for stream in streams if stream not in held])
                own.add(stream)
                (answer,) = await adapter.log.append_many(
                    connection, [Append(instance_id=stream, expected=ANY, events=some(2))]
                )
                assert isinstance(answer, Cursor | StaleTransaction)
            case "end" if writers:
                _, stack, _ = writers.pop(chance.randrange(len(writers)))
                await stack.aclose()
            case "read":
                async with adapter.transaction() as connection:
                    events, after = await adapter.log.read_all(connection, after, limit=7)
                seen += events
    for _, stack, _ in writers:
        await stack.aclose()
    await settle(adapter)
    seen += await read_all(adapter, after)
    assert seen == await read_all(adapter)
    for stream in streams:
        assert [it for it in seen if it.instance_id == stream] == await read(adapter, stream)
    assert len(seen) == sum([len(await read(adapter, stream)) for stream in streams]) > 0


async def test_an_append_without_events_or_after_no_version_is_a_mistake(adapter: Adapter) -> None:
    async with adapter.transaction() as connection:
        with pytest.raises(ValueError, match="at least one event"):
            await adapter.log.append(connection, uuid4(), ANY, [])
        with pytest.raises(ValueError, match="no version -1"):
            await adapter.log.append(connection, uuid4(), -1, some())


async def test_a_page_has_the_events_of_an_app_and_of_some_types_and_passes_the_others(adapter: Adapter) -> None:
    async with adapter.transaction() as connection:
        for app, events in (("a", some(3)), ("b", some(2)), ("a", [InstanceCompleted(result=1)]), ("c", some(1))):
            await adapter.log.append(connection, uuid4(), NO_STREAM, events, {"app": app})
    await settle(adapter)

    async def page(after: Cursor | None = None, limit: int = 100, types: tuple[str, ...] | None = None) -> Page:
        async with adapter.transaction() as connection:
            return await adapter.log.read_page(connection, after, limit, app="a", types=types)

    everything = await read_all(adapter)
    whole = await page()
    assert [it.cursor for it in whole.events] == [it.cursor for it in everything if it.metadata == {"app": "a"}]
    assert (whole.seen, whole.cursor) == (7, everything[-1].cursor)
    assert whole.recorded_at == everything[-1].recorded_at
    some_types = await page(types=("InstanceCompleted",))
    assert ([it.event for it in some_types.events], some_types.seen) == ([InstanceCompleted(result=1)], 7)
    first = await page(limit=4)
    assert (len(first.events), first.seen, first.cursor) == (3, 4, everything[3].cursor)
    second = await page(first.cursor, limit=1)
    assert (list(second.events), second.seen, second.cursor) == ([], 1, everything[4].cursor)
    end = await page(whole.cursor)
    assert (list(end.events), end.seen, end.cursor) == ([], 0, whole.cursor)


async def test_a_page_ends_below_the_safe_horizon(adapter: Adapter) -> None:
    async with adapter.transaction() as slow:
        await adapter.log.append(slow, uuid4(), NO_STREAM, some(), {"app": "a"})
        async with adapter.transaction() as fast:
            await adapter.log.append(fast, uuid4(), NO_STREAM, some(), {"app": "a"})
        async with adapter.transaction() as reader:
            assert (await adapter.log.read_page(reader, app="a")).seen == 0
    await settle(adapter)
    async with adapter.transaction() as reader:
        assert (await adapter.log.read_page(reader, app="a")).seen == 2
