"""Replays from the command line: what the page on them shows, and what is refused."""

import asyncio
import importlib.util
import json
import re
import shlex
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from holdfast import Client
from holdfast.processor.cli.application import main
from holdfast.processor.services import replay as service
from holdfast.processor.services.replay import Replayer
from tests.architecture.house import ROOT
from tests.support.commands import HOLDFAST, holdfast
from tests.support.projections import catch_up, commit, life, rows, settle, start
from tests.support.rabbitmq import take_all
from tests.support.replays import ids, in_thread, queue, remove
from tests.support.workers import Worker, environment, eventually

PAGE = ROOT / "docs" / "replay.md"
COMMANDS = re.findall(r"^    holdfast (.+)$", PAGE.read_text(), re.MULTILINE)


@pytest.fixture
async def env(database_url: str, amqp_url: str) -> AsyncIterator[dict[str, str]]:
    await queue(amqp_url, "audit", exchange="audit")
    await queue(amqp_url, "lab")
    yield environment(database_url, amqp_url)
    await remove(amqp_url, "audit", exchange="audit")
    await remove(amqp_url, "lab")


async def run(env: dict[str, str], *arguments: str) -> str:
    done = await in_thread(lambda: holdfast(*arguments, env=env))
    assert done.returncode == 0, done.stderr
    out: str = done.stdout
    return out


async def test_what_the_page_shows_works(database_url: str, amqp_url: str, env: dict[str, str]) -> None:
    from examples.permits.app import app  # noqa: PLC0415  It is the page's example.

    (order,) = await commit(database_url, life("order"), app="orders")
    await commit(database_url, life("permit"), app="permits")
    with psycopg.connect(database_url) as connection:
        connection.execute("alter table holdfast.events disable trigger user")
        connection.execute("update holdfast.events set recorded_at = '2026-07-14'")
    await catch_up(database_url, app)
    said = [await run(env, *shlex.split(command)) for command in COMMANDS]
    assert [len(COMMANDS), *(line.split()[0] for line in said)] == [
        8, "replay", "replay", "type", "replay", "replay", "replay", "projection", "type",
    ]  # fmt: skip
    assert said[0] == "replay july: 3 events published to exchange audit\n"
    assert said[1].endswith(": 1 events published to queue lab\n")
    assert said[2].split() == ["type", "events", "all", "0"]
    assert [line.split()[0] for line in said[3].splitlines()][-1] == "july"
    assert said[4].startswith("replay july has finished at ")
    assert said[4].endswith(", with 3 events: there is nothing to resume\n")
    assert said[5] == "replay july: removed\n"
    assert said[6] == "projection traces: 0 events handled once more\n"
    assert "InstanceStarted" in said[7]
    assert ids(await in_thread(take_all, amqp_url, "audit")) == [f"{order}:{version}" for version in (1, 2, 3)]
    assert ids(await in_thread(take_all, amqp_url, "lab")) == [f"{order}:3"]


async def test_the_program_of_the_page_runs(
    database_url: str, amqp_url: str, env: dict[str, str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (block,) = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    file = tmp_path / "page.py"
    file.write_text(block)
    specification = importlib.util.spec_from_file_location("page", file)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    await commit(database_url, life("order"), [start("claim")], app="orders")
    await settle(database_url)
    assert await module.publish_july(database_url, amqp_url) == 3
    assert capsys.readouterr().out.split()[-1] == "3"


async def test_reports_are_one_document_each(database_url: str, amqp_url: str, env: dict[str, str]) -> None:
    await commit(database_url, life("order"), app="orders")
    await settle(database_url)
    chosen = ("--app", "orders", "--where", "workflow=order", "--json")
    counted = json.loads(await run(env, "replay", "--to-queue", "lab", "--dry-run", *chosen))
    assert counted == {"events": 3, "types": {"InstanceCompleted": 1, "InstanceStarted": 1, "Persisted": 1}}
    report = json.loads(await run(env, "replay", "--to-queue", "lab", "--name", "a", "--from", "2020-01-01", *chosen))
    times = {name: report.pop(name) for name in ("started_at", "updated_at", "finished_at")}
    assert None not in times.values()
    assert report.pop("cursor") == report.pop("end")
    since = report["where"].pop("since")
    assert since.startswith(("2020-01-01", "2019-12-31"))
    assert report == {
        "replay": "a", "app": "orders", "exchange": "", "queue": "lab", "where": {"workflow": "order"}, "published": 3,
    }  # fmt: skip
    (listed,) = (await run(env, "replays", "--json")).splitlines()
    assert json.loads(listed)["published"] == 3
    assert await run(env, "replays", "--app", "another", "--json") == ""
    assert json.loads(await run(env, "replays", "remove", "a", "--json")) == {"replay": "a", "removed": True}
    assert rows(database_url, "select * from holdfast.replays") == []
    messages = await in_thread(take_all, amqp_url, "lab")
    assert {it.header.properties.headers["x-holdfast-replayed"] for it in messages} == {"a"}


async def test_a_projection_reports_what_it_was_given(database_url: str, env: dict[str, str]) -> None:
    from examples.permits.app import app  # noqa: PLC0415  As above.

    await commit(database_url, life("permit"), app="permits")
    await catch_up(database_url, app)
    chosen = ("--app", "examples.permits.app:app", "--into", "traces", "--where", "type=InstanceStarted", "--json")
    given = json.loads(await run(env, "replay", *chosen))
    assert (given["projection"], given["handled"], given["skipped"]) == ("traces", 1, 0)
    (lag,) = [it for it in rows(database_url, "select name, cursor from holdfast.projection_lag") if it[0] == "traces"]
    assert given["cursor"] == lag[1]


def test_mistakes_are_told(
    database_url: str, amqp_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOLDFAST_DATABASE_URL", database_url)
    monkeypatch.setenv("HOLDFAST_AMQP_URL", amqp_url)
    asyncio.run(queue(amqp_url, "lab"))
    asyncio.run(commit(database_url, life("order"), app="orders"))
    nowhere = "one of --to-exchange, --to-queue and --into"
    lab = ("--app", "orders", "--to-queue", "lab")
    for arguments, code, complaint in (
        ((), 2, nowhere),
        ((*lab, "--into", "x"), 2, nowhere),
        ((*lab, "--resume", "x"), 2, nowhere),
        (("--to-queue", "lab"), 2, "give the app's name with --app"),
        ((*lab, "--rate", "fast"), 2, "--rate takes messages a second"),
        ((*lab, "--rate", "-5"), 2, "--rate takes messages a second"),
        ((*lab, "--rate", "1.5"), 2, "--rate takes messages a second"),
        ((*lab, "--from", "yesterday"), 2, "--from takes a cursor, or a moment in ISO 8601"),
        ((*lab, "--to", "1-2"), 2, "--to takes a cursor, or a moment in ISO 8601"),
        ((*lab, "--to", "1-99999999-1"), 1, "lies behind the end of the log"),
        ((*lab, "--from", "2026-02-01", "--to", "2026-01-01"), 1, "the second comes before the first"),
        ((*lab, "--where", "workflow"), 2, "means nothing: write workflow=NAME"),
        ((*lab, "--where", "status=completed"), 2, "means nothing: write workflow=NAME"),
        ((*lab, "--where", "type=Started"), 2, "there are no events of type 'Started'"),
        ((*lab, "--where", "instance=17"), 2, "is no id of an instance"),
        ((*lab, "--where", "key=1", "--where", "key=2"), 2, "nothing fits both"),
        ((*lab, "--skipped"), 2, "--skipped goes with --into"),
        (("--app", "orders", "--to-exchange", "holdfast.orders"), 1, "history never goes where an instance could get"),
        (("--app", "orders", "--to-queue", "holdfast.orders.00"), 1, "history never goes where an instance could get"),
        (("--app", "orders", "--to-queue", "nowhere-at-all"), 1, "cannot publish to queue nowhere-at-all"),
        (("--app", "orders", "--to-exchange", ""), 1, "where it goes have names: exchange is empty"),
        ((*lab, "--name", ""), 1, "where it goes have names: name is empty"),
        ((*lab, "--from", "2999-01-01"), 1, "which is still to come"),
        (("--app", "oders", "--to-queue", "lab"), 1, "there is no app 'oders' here"),
        (("--app", "oders", "--to-queue", "lab", "--dry-run"), 1, "there is no app 'oders' here"),
        (("--resume", "august"), 1, "there is no replay 'august'"),
        (("--resume", "august", "--where", "key=1"), 2, "give --resume nothing but --rate"),
        (("--resume", "august", "--app", "orders"), 2, "give --resume nothing but --rate"),
        (("--app", "orders", "--into", "traces"), 2, "say with --app where the app is"),
        (("--app", "examples.permits.app:app", "--into", "traces", "--rate", "5"), 2, "not for --into"),
        (("--app", "examples.permits.app:app", "--into", "nonsense"), 1, "there is no projection 'nonsense'"),
        (("--app", "examples.permits.app:app", "--into", "traces"), 1, "there is no projection 'traces'"),
    ):
        assert main(["replay", *arguments]) == code, arguments
        out, err = capsys.readouterr()
        assert out == ""
        assert complaint in err.splitlines()[-1], arguments
    assert main(["replays", "remove", "august"]) == 1
    assert capsys.readouterr().err == "holdfast: there is no replay 'august'\n"
    assert rows(database_url, "select * from holdfast.replays") == []
    asyncio.run(remove(amqp_url, "lab"))


def test_unless_told_otherwise_a_replay_publishes_a_thousand_messages_a_second_at_most(
    database_url: str, amqp_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates: list[int] = []

    class Noting(Replayer):
        def __init__(self, *given: Any, rate: int, **more: Any) -> None:
            rates.append(rate)
            super().__init__(*given, rate=rate, **more)

    async def from_python() -> None:
        async with Client(database_url, amqp_url, "orders") as client:
            await client.replays.begin("july", to_queue="lab")
            assert [step.replay.published async for step in client.replays.run("july")][-1] == 3

    monkeypatch.setattr(service, "Replayer", Noting)
    monkeypatch.setenv("HOLDFAST_DATABASE_URL", database_url)
    monkeypatch.setenv("HOLDFAST_AMQP_URL", amqp_url)
    asyncio.run(queue(amqp_url, "lab"))
    asyncio.run(commit(database_url, life("order"), app="orders"))
    asyncio.run(settle(database_url))
    command = ["replay", "--app", "orders", "--to-queue", "lab"]
    assert [main(command), main([*command, "--rate", "50/s"])] == [0, 0]
    asyncio.run(from_python())
    assert rates == [1000, 50, 1000]
    assert len(take_all(amqp_url, "lab")) == 9


def test_an_interrupted_replay_ends_quietly_and_goes_on_when_it_is_told_to(
    database_url: str, amqp_url: str, tmp_path: Path
) -> None:
    asyncio.run(queue(amqp_url, "lab"))
    asyncio.run(commit(database_url, *(life() for _ in range(100)), app="orders"))
    asyncio.run(settle(database_url))
    env = environment(database_url, amqp_url)
    command: list[str | Path] = [HOLDFAST, "replay", "--app", "orders", "--to-queue", "lab", "--name", "slow"]
    process = Worker([*command, "--rate", "5"], env, tmp_path / "replay.log")
    begun = "select coalesce(max(published), 0) > 0 from holdfast.replays"
    eventually("some events are out", lambda: rows(database_url, begun) == [(True,)])
    process.process.send_signal(signal.SIGINT)
    assert process.process.wait(30) == 128 + signal.SIGINT
    said = process.output.strip().splitlines()
    assert said[0] == "replay slow: if it is interrupted, `holdfast replay --resume slow` goes on with it"
    # What comes behind it tells how far it was, if that took a while.
    assert all(re.fullmatch(r"slow: .* events/s(, .* s left)?", line) for line in said[1:])
    done = holdfast("replay", "--resume", "slow", "--rate", "0", env=env)
    assert (done.returncode, done.stdout) == (0, "replay slow: 300 events published to queue lab\n")
    assert 300 <= len(take_all(amqp_url, "lab")) <= 305
    # The queue is gone, and nothing misses it.
    again = holdfast("replay", "--resume", "slow", env=env)
    assert again.returncode == 0
    assert re.fullmatch(
        r"replay slow has finished at .*, with 300 events: there is nothing to resume\n", again.stdout + again.stderr
    )
    assert json.loads(holdfast("replay", "--resume", "slow", "--json", env=env).stdout)["published"] == 300
