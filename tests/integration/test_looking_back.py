"""Looking back at instances, as a client and at the command line: what happened, how it was, and what differs."""

import asyncio
import json
import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import psycopg
import pytest

from compose.local.services import Services
from holdfast import App, Client, InstanceNotFound, Message, VersionNotFound, compensable, receive, routine
from holdfast.projections.history import SourceLine
from holdfast.schemas.settings import Settings
from tests.support.commands import holdfast
from tests.support.hosts import running_host
from tests.support.workers import environment

app = App("looks")
ABSENT = "0199c1a2-0000-7000-8000-000000000000"


@dataclass
class Line:
    item: str
    amount: int


@dataclass
class Order:
    key: str
    lines: list[Line]


class Placed(Message, correlation="key"):
    key: str
    amounts: list[int]


class Amended(Message, correlation="key"):
    key: str
    place: int
    amount: int


@app.activity
async def give_back(what: str) -> None: ...


@routine
async def amendment(order: Order) -> None:
    amended = await receive(Amended, order.key)
    order.lines[amended.place].amount = amended.amount


@app.workflow(start=Placed)
async def order(placed: Placed) -> str:
    order = Order(placed.key, [Line("chair", amount) for amount in placed.amounts])
    note = "new"
    await amendment(order)
    del note
    async with compensable() as stock:
        stock.undo(give_back, "stock")
    await receive(Amended, placed.key)
    return order.key


def line_of(text: str) -> int:
    (found,) = [n for n, line in enumerate(Path(__file__).read_text().splitlines(), 1) if line.strip() == text]
    return found


@dataclass(frozen=True)
class Looked:
    """An order that was amended once, and then once more."""

    url: str
    instance: str
    waiting: int
    amended: int
    done: int

    def command(self, *arguments: str, **env: str) -> Any:
        return holdfast(*arguments, env=environment(self.url, "") | env)

    def fails(self, *arguments: str) -> tuple[int, str]:
        done = self.command(*arguments)
        assert re.fullmatch(r"holdfast: .+\n", done.stderr), done.stderr
        return done.returncode, done.stderr

    def lines(self, *arguments: str) -> list[dict[str, Any]]:
        done = self.command(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def looked(services: Services, migrated_template: str) -> Iterator[Looked]:
    name = f"holdfast_test_{secrets.token_hex(4)}"
    database_url = services.new_database(name, template=migrated_template)

    async def live() -> Looked:
        async with running_host(app, database_url, Settings()) as host, Client(database_url) as client:
            instance_id = await host.deliver(Placed(key="7", amounts=[1, 2, 3]))
            waiting = (await client.state(instance_id)).version
            await host.hear(Amended(key="7", place=2, amount=4).envelope("one"))
            amended = (await client.state(instance_id)).version
            await host.hear(Amended(key="7", place=0, amount=0).envelope("two"))
            return Looked(database_url, str(instance_id), waiting, amended, (await client.state(instance_id)).version)

    yield asyncio.run(live())
    services.drop_database(name)


@pytest.fixture
def client(looked: Looked) -> Client:
    return Client(looked.url)


# History.


async def test_a_client_tells_the_line_at_which_it_happened_in_whatever_frame(looked: Looked, client: Client) -> None:
    async with client:
        lines = {
            entry.source: entry.where.frame
            async for entry in client.history(looked.instance)  # type: ignore[arg-type]  # Text will do.
            if entry.where is not None and type(entry.recorded.event).__name__ == "MessageReceived"
        }
    first, second = "amended = await receive(Amended, order.key)", "await receive(Amended, placed.key)"
    (frame,) = {path for path in lines.values() if path != "0"}
    assert lines == {
        SourceLine(__file__, line_of(first), first): frame,
        SourceLine(__file__, line_of(second), second): "0",
    }


def test_history_shows_what_each_event_changed(looked: Looked) -> None:
    printed = looked.command("history", looked.instance).stdout
    text = r"test_looking_back\.py:\d+: amended = await receive\(Amended, order\.key\)$"
    assert re.search(rf"MessageReceived    frame \S+, step \d+, {text}", printed, re.MULTILINE)
    assert re.search(r"^      note = 'new'$", printed, re.MULTILINE)
    assert re.search(r"^      order\.lines\[2\]\.amount: 3 -> 4$", printed, re.MULTILINE)
    assert re.search(r"^      note is gone, was 'new'$", printed, re.MULTILINE)
    assert re.search(r"^      frame 0\.\d+ begins$", printed, re.MULTILINE)
    assert re.search(r"^      compensation \d+: undo give_back\('stock'\)$", printed, re.MULTILINE)
    assert re.search(r"^      bookmark \S+ is gone, was Amended with key 7$", printed, re.MULTILINE)
    assert re.search(r"^      execution_status: 'executing' -> 'idle'$", printed, re.MULTILINE)
    assert re.search(r"^      outcome: None -> 'completed'$", printed, re.MULTILINE)


def test_history_has_the_changes_in_full_for_scripts(looked: Looked) -> None:
    events = looked.lines("history", looked.instance)
    changes = [change for event in events for change in event["changes"] if change["name"] == "order.lines[2].amount"]
    assert changes == [
        {
            "section": "variable",
            "name": "order.lines[2].amount",
            "kind": "changed",
            "path": ["frames", "0", "variables", "order", "lines", 2, "amount"],
            "frame": "0",
            "before": 3,
            "after": 4,
        }
    ]
    added = [it for event in events for it in event["changes"] if it["kind"] == "added"]
    made, shared = [it for it in added if it["name"] == "order"]
    assert [line["amount"] for line in made["after"]["lines"]] == [1, 2, 3]
    assert shared["after"] == {"$ref": "0.order"}


def test_history_may_be_a_part_by_versions_or_moments(looked: Looked) -> None:
    whole = looked.lines("history", looked.instance)
    assert looked.lines("history", looked.instance, "--from", "3", "--to", "4") == whole[2:4]
    since = whole[looked.amended]["recorded_at"]
    assert looked.lines("history", looked.instance, "--from", since) == whole[looked.amended :]
    assert looked.lines("history", looked.instance, "--to", "2026-01-02T00:00:00+09:00") == []


@pytest.mark.parametrize("end", ["0", "-1", "soon", "2026-13-01", "²"])
def test_a_part_of_the_history_that_means_nothing_is_a_mistake(looked: Looked, end: str) -> None:
    code, said = looked.fails("history", ABSENT, f"--from={end}")
    assert (code, "--from takes a version" in said) == (2, True)


def test_without_the_file_history_shows_what_the_stored_programs_have(looked: Looked) -> None:
    rename = "update holdfast.programs set program = replace(program::text, %s, %s)::json"
    with psycopg.connect(looked.url) as connection:
        connection.execute(rename, ["test_looking_back.py", "test_lost.py"])
    printed = looked.command("history", looked.instance).stdout
    received = [it for it in looked.lines("history", looked.instance) if it["type"] == "MessageReceived"]
    with psycopg.connect(looked.url) as connection:
        connection.execute(rename, ["test_lost.py", "test_looking_back.py"])
    assert re.search(r"test_lost\.py:\d+: \(await receive\(Amended, order\.key\)\)$", printed, re.MULTILINE)
    assert {(it["source"], it["source_is_stored"]) for it in received} == {
        ("await receive(Amended, order.key)", True),
        ("await receive(Amended, placed.key)", True),
    }


# State.


def test_a_state_before_the_first_event_or_after_the_last_is_refused(looked: Looked) -> None:
    assert looked.fails("state", looked.instance, "--at", "2020-01-01T00:00:00+01:00") == (
        1,
        f"holdfast: instance {looked.instance} had no event by 2020-01-01T00:00:00+01:00\n",
    )
    code, said = looked.fails("state", looked.instance, "--at", str(looked.done + 1))
    assert (code, f"has versions 1 to {looked.done}, not {looked.done + 1}" in said) == (1, True)
    code, said = looked.fails("state", looked.instance, "--at", "0")
    assert (code, "--at takes a version from 1 on" in said) == (2, True)


def test_a_moment_without_an_offset_is_local_time(looked: Looked) -> None:
    moment = datetime.fromisoformat(looked.lines("history", looked.instance)[looked.waiting - 1]["recorded_at"])
    local = moment.astimezone(ZoneInfo("Asia/Tokyo")).replace(tzinfo=None).isoformat()
    there = json.loads(looked.command("state", looked.instance, "--at", local, "--json", TZ="Asia/Tokyo").stdout)
    (same,) = looked.lines("state", looked.instance, "--at", moment.astimezone(ZoneInfo("America/Lima")).isoformat())
    assert there == same
    assert same["version"] == looked.waiting


# Differences.


async def test_a_client_compares_two_states(looked: Looked, client: Client) -> None:
    instance: Any = looked.instance
    async with client:
        found = await client.diff(instance, looked.waiting, looked.amended)
        assert (found.before.version, found.after.version) == (looked.waiting, looked.amended)
        changed = {it.name: (it.before, it.after) for it in found.changes if it.kind == "changed"}
        assert changed["order.lines[2].amount"] == (3, 4)
        assert {it.after["name"] for it in found.changes if it.section == "compensation"} == {"give_back"}
        assert {it.name for it in found.changes if (it.section, it.kind) == ("variable", "removed")} >= {"note"}
        assert (await client.diff(instance, looked.done)).changes == ()
        with pytest.raises(VersionNotFound):
            await client.diff(instance, looked.done + 1)
        with pytest.raises(InstanceNotFound):
            await client.diff(instance, other=ABSENT)  # type: ignore[arg-type]  # Text will do.


def test_diff_shows_what_differs_between_two_states(looked: Looked) -> None:
    done = looked.command("diff", f"{looked.instance}@{looked.waiting}", f"@{looked.amended}")
    assert (done.returncode, done.stderr) == (1, "")
    assert f"--- {looked.instance} at version {looked.waiting}\n" in done.stdout
    assert f"+++ {looked.instance} at version {looked.amended}\n" in done.stdout
    before, after = "await amendment(order)", "await receive(Amended, placed.key)"
    places = [f"test_looking_back.py:{line_of(text)}: {text}" for text in (before, after)]
    assert f"  frame 0: {' -> '.join(places)}\n" in done.stdout
    assert "  order.lines[2].amount: 3 -> 4\n" in done.stdout
    assert "  note is gone, was 'new'\n" in done.stdout
    assert re.search(r"^compensations\n  compensation \d+: undo give_back\('stock'\)$", done.stdout, re.MULTILINE)
    assert re.search(r"^waits\n  bookmark \S+ is gone, was Amended with key 7$", done.stdout, re.MULTILINE)


def test_diff_takes_moments_and_gives_json(looked: Looked) -> None:
    events = looked.lines("history", looked.instance)
    moments = [events[version - 1]["recorded_at"] for version in (looked.waiting, looked.amended)]
    done = looked.command("diff", *(f"{looked.instance}@{moment}" for moment in moments), "--json")
    assert done.returncode == 1
    document = json.loads(done.stdout)
    assert document["before"] == {"instance_id": looked.instance, "version": looked.waiting}
    assert document["after"] == {"instance_id": looked.instance, "version": looked.amended}
    assert {"frame": "0", "before": 3, "after": 4}.items() <= next(
        it for it in document["changes"] if it["name"] == "order.lines[2].amount"
    ).items()


def test_diff_of_equal_states_has_nothing_to_say(looked: Looked) -> None:
    done = looked.command("diff", looked.instance, "@now", "--json")
    assert (done.returncode, json.loads(done.stdout)["changes"]) == (0, [])
    assert looked.command("diff", looked.instance, looked.instance).stdout.count("\n") == 2


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["nonsense", "@now"], "write INSTANCE or INSTANCE@WHEN"),
        (["@now", ABSENT], "write INSTANCE or INSTANCE@WHEN"),
        ([ABSENT, "now"], "write INSTANCE or INSTANCE@WHEN"),
        ([f"{ABSENT}@yesterday", "@now"], "takes a version or a moment"),
        ([f"{ABSENT}@", "@now"], "takes a version or a moment"),
        ([ABSENT, "@0"], "takes a version from 1 on"),
        ([ABSENT, "@now"], f"there is no instance {ABSENT}"),
        ([ABSENT, "@now", "--database-url", "postgresql:///x?host=/nowhere"], "nowhere"),
    ],
    ids=lambda it: " ".join(it).replace(ABSENT, "it") if isinstance(it, list) else "",
)
def test_diff_says_what_is_wrong_with_a_code_of_its_own(looked: Looked, arguments: list[str], complaint: str) -> None:
    code, said = looked.fails("diff", *arguments)
    assert (code, complaint in said) == (2, True)
