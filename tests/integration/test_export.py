"""The log and the instance store as files, read back by others and compared with what there is."""

import json
import sys
import tracemalloc
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]
import pytest

from holdfast import Client, ExportRefused
from holdfast.events.codec import encode
from holdfast.events.recorded import Cursor, RecordedEvent
from holdfast.events.types import Event
from holdfast.processor.exporting import parquet
from holdfast.projections import export
from holdfast.projections.criteria import Criteria
from tests.support.exports import QUERY, add_orders, files, lines
from tests.support.instances import PAID, WAITING, add_host, persist, register
from tests.support.projections import commit, life, rows, settle

COLUMNS = ("cursor", "instance_id", "version", "type", "xid", "position", "recorded_at")


@pytest.fixture
async def client(database_url: str) -> AsyncIterator[Client]:
    async with Client(database_url) as client:
        yield client


@pytest.fixture
async def orders(database_url: str) -> list[UUID]:
    return await add_orders(database_url)


async def recorded(client: Client, *instance_ids: UUID) -> list[RecordedEvent]:
    return [entry.recorded for each in instance_ids async for entry in client.history(each)]


async def test_parquet_has_every_event_of_the_log_as_it_is(
    client: Client, orders: list[UUID], database_url: str, tmp_path: Path
) -> None:
    exported = await client.export.events(tmp_path / "log.parquet", "parquet")
    table = pq.read_table(tmp_path / "log.parquet")
    found = table.to_pylist()
    assert [tuple(row[name] for name in COLUMNS) for row in found] == rows(database_url, QUERY)
    assert exported.events == len(found)
    assert exported.cursor == found[-1]["cursor"]
    assert table.schema.metadata[b"holdfast.cursor"].decode() == exported.cursor
    log = {(str(it.instance_id), it.version): it for it in await recorded(client, *orders)}
    for row in found:
        it = log[row["instance_id"], row["version"]]
        assert (row["type"], row["data"].encode()) == encode(it.event)
        assert json.loads(row["metadata"]) == it.metadata
    instances = {str(it.instance_id): it for it in await client.instances()}
    for row in found:
        if row["instance_id"] in instances:
            instance = instances[row["instance_id"]]
            assert (row["app"], row["workflow"], row["correlation_key"]) == (
                instance.app,
                instance.workflow,
                instance.correlation_key,
            )
        else:
            assert (row["app"], row["workflow"], row["correlation_key"]) == ("other", "order", "order-1")


async def test_the_columns_of_parquet_have_types(client: Client, orders: list[UUID], tmp_path: Path) -> None:
    await client.export.events(tmp_path / "log.parquet", "parquet")
    schema = pq.read_schema(tmp_path / "log.parquet")
    assert schema.names == [*parquet.EVENTS]
    word = pa.dictionary(pa.int32(), pa.string())
    assert {name: schema.field(name).type for name in ("recorded_at", "position", "type", "name", "data")} == {
        "recorded_at": pa.timestamp("us", tz="UTC"),
        "position": pa.int64(),
        "type": word,
        "name": word,
        "data": pa.string(),
    }
    assert [name for name in schema.names if schema.field(name).nullable] == ["name"]


async def test_json_lines_say_the_same_as_parquet(client: Client, orders: list[UUID], tmp_path: Path) -> None:
    out = BytesIO()
    await client.export.events(out, "jsonl")
    await client.export.events(tmp_path / "log.parquet", "parquet")
    found = lines(out)
    for row in found:
        row["data"] = json.dumps(row["data"])
        row["metadata"] = json.dumps(row["metadata"])
        row["recorded_at"] = datetime.fromisoformat(row["recorded_at"])
        assert row["recorded_at"].utcoffset() == timedelta(0)
    table = pq.read_table(tmp_path / "log.parquet").to_pylist()
    for row in table:
        row["data"] = json.dumps(json.loads(row["data"]))
        row["metadata"] = json.dumps(json.loads(row["metadata"]))
    assert found == table


async def test_a_row_names_what_the_event_is_about(client: Client, orders: list[UUID]) -> None:
    out = BytesIO()
    await client.export.events(out, "jsonl")
    names = {row["type"]: row["name"] for row in lines(out) if row["app"] == "other"}
    assert names["InstanceStarted"] == "OrderPlaced"
    assert names["ActivityCompleted"] == "reserve_stock"
    assert names["MessageReceived"] == "PaymentReceived"
    assert names["Persisted"] is None


async def test_an_app_has_its_own_events_only(orders: list[UUID], database_url: str) -> None:
    out = BytesIO()
    async with Client(database_url, app="shop") as client:
        await client.export.events(out, "jsonl")
    assert {row["app"] for row in lines(out)} == {"shop"}
    assert {row["instance_id"] for row in lines(out)} == {str(each) for each in orders[:3]}


async def test_only_instances_that_fit_are_exported_each_as_a_whole(client: Client, orders: list[UUID]) -> None:
    out = BytesIO()
    exported = await client.export.events(out, "jsonl", where={"outcome": "completed"})
    assert exported.events == len(WAITING) + len(PAID)
    assert [(row["instance_id"], row["version"]) for row in lines(out)] == [
        (str(orders[1]), version) for version in range(1, len(WAITING) + len(PAID) + 1)
    ]


async def test_an_export_that_goes_on_from_a_cursor_misses_nothing_and_repeats_nothing(
    client: Client, database_url: str
) -> None:
    await commit(database_url, life(), life())
    await settle(database_url)
    first = BytesIO()
    cursor = (await client.export.events(first, "jsonl")).cursor
    await commit(database_url, life())
    await settle(database_url)
    second, all_ = BytesIO(), BytesIO()
    await client.export.events(second, "jsonl", first=cursor)
    await client.export.events(all_, "jsonl")
    assert lines(first) + lines(second) == lines(all_)
    assert len(lines(second)) == len(life())
    again = BytesIO()
    assert (await client.export.events(again, "jsonl", last=cursor)).cursor == cursor
    assert lines(again) == lines(first)


async def test_an_export_of_what_instances_always_were_can_be_gone_on_with(client: Client, database_url: str) -> None:
    async with await psycopg.AsyncConnection.connect(database_url) as connection:
        host = await add_host(connection)
        order = await register(connection, host)
        await persist(connection, host, order, WAITING, release=False)
        await connection.commit()
        await settle(database_url)
        parts = [BytesIO(), BytesIO()]
        cursor = (await client.export.events(parts[0], "jsonl", where={"workflow": "order"})).cursor
        await persist(connection, host, order, PAID)
    await settle(database_url)
    await client.export.events(parts[1], "jsonl", where={"workflow": "order"}, first=cursor)
    versions = [[row["version"] for row in lines(part)] for part in parts]
    assert versions == [[1, 2, 3, 4], [5, 6, 7]]


@pytest.mark.parametrize(
    "where", [{"outcome": "completed"}, {"is_completed": True}, {"promoted": {"a": 1}}, {"older_than": timedelta(1)}]
)
async def test_what_instances_come_to_be_is_no_choice_behind_a_cursor(
    client: Client, orders: list[UUID], where: Criteria
) -> None:
    cursor = (await client.export.events(BytesIO(), "jsonl", where=where)).cursor
    (name,) = where
    with pytest.raises(ExportRefused, match=f"instances come to fit {name} as they run"):
        await client.export.events(BytesIO(), "jsonl", where=where, first=cursor)
    with pytest.raises(ExportRefused, match=f"instances come to fit {name} as they run"):
        await client.export.traces(BytesIO(), where=where, first=cursor)
    assert (await client.export.events(BytesIO(), "jsonl", where={"outcome": None}, first=cursor)).events == 0


async def test_a_range_that_ends_before_it_begins_is_refused(client: Client, database_url: str) -> None:
    for _ in range(2):
        await commit(database_url, life())
    await settle(database_url)
    found = rows(database_url, QUERY)
    (early, *_, before), (late, *_, after) = found[0], found[-1]
    for first, last in ((late, early), (after, before), (late, before), (after, early)):
        with pytest.raises(ExportRefused, match=r"nothing lies between .*: the second comes before the first"):
            await client.export.events(BytesIO(), "jsonl", first=first, last=last)
    for first, last in ((early, late), (before, after), (early, after), (before, late), (late, late)):
        exported = await client.export.events(BytesIO(), "jsonl", first=first, last=last)
        assert bool(exported.events) == (first != last)


async def test_moments_include_the_first_and_not_the_last(client: Client, database_url: str) -> None:
    for _ in range(3):
        await commit(database_url, life())
    await settle(database_url)
    moments = [
        moment for (moment,) in rows(database_url, "select distinct recorded_at from holdfast.events order by 1")
    ]
    out = BytesIO()
    await client.export.events(out, "jsonl", first=moments[1], last=moments[2])
    assert {datetime.fromisoformat(row["recorded_at"]) for row in lines(out)} == {moments[1]}


async def test_what_is_not_complete_yet_is_left_out_and_no_end(client: Client, database_url: str) -> None:
    await commit(database_url, life())
    await settle(database_url)
    async with await psycopg.AsyncConnection.connect(database_url) as late:
        await late.execute("select pg_current_xact_id()")
        await commit(database_url, life())
        out = BytesIO()
        exported = await client.export.events(out, "jsonl")
        assert exported.events == len(life())
        (beyond,) = rows(database_url, QUERY)[-1][:1]
        assert Cursor.parse(exported.cursor) < Cursor.parse(beyond)
        with pytest.raises(ExportRefused, match=rf"complete up to {exported.cursor} only, not up to {beyond}"):
            await client.export.events(BytesIO(), "jsonl", last=beyond)


async def test_an_empty_log_is_a_file_without_rows(client: Client, tmp_path: Path) -> None:
    exported = await client.export.events(tmp_path / "log.parquet", "parquet")
    assert (exported.events, exported.cursor) == (0, "0-0-0")
    again = await client.export.events(BytesIO(), "jsonl", first="0-0-0", last=datetime.now(UTC))
    assert (again.events, again.cursor) == (0, "0-0-0")
    assert pq.read_table(tmp_path / "log.parquet").num_rows == 0
    assert pq.read_schema(tmp_path / "log.parquet").names == [*parquet.EVENTS]


async def test_the_instance_store_is_exported_as_the_client_shows_it(
    client: Client, orders: list[UUID], database_url: str, tmp_path: Path
) -> None:
    with psycopg.connect(database_url) as connection:
        connection.execute("update holdfast.instance_states set promoted = '{\"amount\": 5}'")
    await client.export.instances(tmp_path / "instances.parquet", "parquet")
    out = BytesIO()
    exported = await client.export.instances(out, "jsonl")
    table = pq.read_table(tmp_path / "instances.parquet")
    shown = await client.instances()
    assert exported.instances == table.num_rows == len(shown) == 3
    assert table.schema.field("creation_time").type == pa.timestamp("us", tz="UTC")
    for instance, row, line in zip(shown, table.to_pylist(), lines(out), strict=True):
        assert row["instance_id"] == line["instance_id"] == str(instance.instance_id)
        assert row["creation_time"] == datetime.fromisoformat(line["creation_time"]) == instance.creation_time
        assert row["active_bookmarks"] == line["active_bookmarks"] == [*instance.active_bookmarks]
        assert json.loads(row["promoted"]) == line["promoted"] == {"amount": 5}
        for name in ("execution_status", "outcome", "is_suspended", "suspension_reason", "version", "workflow"):
            assert row[name] == line[name] == getattr(instance, name)


async def test_of_a_large_export_little_is_in_memory_at_a_time(
    client: Client, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heavy: list[Event] = [life()[0], *(event for _ in range(100) for event in life(result="x" * 10_000)[1:])]
    await commit(database_url, *[heavy] * 10)
    await settle(database_url)
    monkeypatch.setattr(export, "_EVENTS", 50)
    monkeypatch.setattr(parquet, "GROUP_BYTES", 1 << 20)
    pool = pa.default_memory_pool()
    before = pool.bytes_allocated()
    most = 0

    def told(_: int, __: int | None) -> None:
        nonlocal most
        most = max(most, pool.bytes_allocated() - before)

    tracemalloc.start()
    try:
        await client.export.events(tmp_path / "log.jsonl", "jsonl", told=told)
        await client.export.traces(tmp_path / "log.xes", with_all=True)
        await client.export.events(tmp_path / "log.parquet", "parquet", told=told)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    size = (tmp_path / "log.jsonl").stat().st_size
    assert size > 10_000_000
    assert peak < size / 2
    assert most < size / 4
    assert pq.ParquetFile(tmp_path / "log.parquet").num_row_groups > 3


# Files.


async def test_a_file_takes_the_place_of_the_one_before_when_it_is_whole(
    client: Client, orders: list[UUID], tmp_path: Path
) -> None:
    out = tmp_path / "log.jsonl"
    out.write_text("old")
    seen: list[str] = []
    await client.export.events(out, "jsonl", told=lambda *_: seen.append(out.read_text()))
    assert seen == ["old"]
    assert len(lines(out)) > 1
    assert files(tmp_path) == ["log.jsonl"]


@pytest.mark.parametrize("format", ["jsonl", "parquet"])
async def test_an_export_that_fails_leaves_nothing_behind(
    client: Client, orders: list[UUID], tmp_path: Path, format: Any
) -> None:
    class Failure(Exception):
        pass

    def fails(*_: object) -> None:
        raise Failure

    with pytest.raises(Failure):
        await client.export.events(tmp_path / "log", format, told=fails)
    assert files(tmp_path) == []


async def test_without_pyarrow_parquet_says_what_to_install(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ExportRefused, match=r"Parquet needs pyarrow: pip install 'holdfast\[parquet\]'"):
        await client.export.events(tmp_path / "log.parquet", "parquet")
    assert files(tmp_path) == []
