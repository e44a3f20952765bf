"""Commands for one instance and for many, and those about timers, as a user gives them, with no worker running."""

import json
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import psycopg
import pytest

from tests.support.commands import holdfast
from tests.support.instances import SUSPENDED, WAITING, add_host, add_order
from tests.support.workers import environment


@dataclass(frozen=True)
class Shop:
    """Three orders: two that wait, one that is suspended. A worker holds the first."""

    database_url: str
    orders: tuple[UUID, ...]

    def run(self, *arguments: str, code: int = 0) -> str:
        """Run a command, and return what it prints; what it complains of, if it is to fail."""
        done = holdfast(*arguments, env=environment(self.database_url, ""))
        assert done.returncode == code, done.stderr
        return done.stdout if code == 0 else done.stderr

    def lines(self, *arguments: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.run(*arguments, "--json").splitlines()]

    def commands(self) -> list[tuple[str, dict[str, Any]]]:
        """Return the verdicts and bodies of the commands in the inbox, in order."""
        with psycopg.connect(self.database_url) as connection:
            rows = connection.execute(
                "select verdict, body from holdfast.inbox where kind = 'control' order by sequence"
            ).fetchall()
        return [(verdict, json.loads(bytes(body)) if body else {}) for verdict, body in rows]


@pytest.fixture
async def shop(database_url: str) -> Shop:
    async with await psycopg.AsyncConnection.connect(database_url) as connection:
        host = await add_host(connection)
        orders = [await add_order(connection, host, *batches) for batches in ((WAITING,), (WAITING,))]
        orders.append(await add_order(connection, host, WAITING, SUSPENDED))
        await connection.execute(
            "update holdfast.instance_rows set lock_owner = %s where instance_id = %s", [host, orders[0]]
        )
    return Shop(database_url, tuple(orders))


def test_one_instance_is_asked(shop: Shop) -> None:
    printed = shop.run("persist", str(shop.orders[0]), "--by", "ann", "--why", "before the move")
    assert printed == f"instance {shop.orders[0]} is asked to be persisted: a worker of its app takes it up\n"
    ((verdict, body),) = shop.commands()
    assert (verdict, body["command"], body["by"], body["why"]) == ("buffered", "persist", "ann", "before the move")


def test_nothing_is_to_be_done_for_one_that_no_worker_has(shop: Shop) -> None:
    printed = shop.run("unload", str(shop.orders[1]))
    assert printed == f"nothing is to be done: no worker has instance {shop.orders[1]} in memory\n"
    assert [verdict for verdict, _ in shop.commands()] == ["applied"]


def test_a_dry_run_lists_who_is_meant_and_does_nothing(shop: Shop) -> None:
    found = shop.lines("suspend", "--where", "workflow=order", "--where", "status=idle", "--dry-run")
    assert {each["instance_id"] for each in found} == {str(order) for order in shop.orders[:2]}
    printed = shop.run("suspend", "--where", "status=suspended", "--dry-run")
    assert printed.splitlines()[1].startswith(str(shop.orders[2]))
    assert not shop.lines("suspend", "--where", "older=1w", "--dry-run")
    assert not shop.lines("suspend", "--where", "promoted.city=Ulm", "--dry-run")
    assert shop.commands() == []


def test_a_query_gives_each_its_own_command(shop: Shop) -> None:
    found = {each["instance_id"]: each for each in shop.lines("suspend", "--where", "workflow=order", "--yes")}
    assert [found[str(order)]["verdict"] for order in shop.orders] == ["buffered", "buffered", None]
    assert found[str(shop.orders[2])]["refusal"] == f"instance {shop.orders[2]} is suspended already"
    assert len(shop.commands()) == 2
    printed = shop.run("unload", "--where", "workflow=order", "--yes")
    assert printed == "1 instance asked to be persisted and let go of, 2 with nothing to do, 0 refused\n"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("suspend",), "name an instance, or say with --where which ones are meant"),
        (("suspend", "--where", "workflow=order"), "nobody can be asked here: look with --dry-run, then say --yes"),
        (("suspend", "--where", "colour=red", "--yes"), "--where 'colour=red' means nothing"),
        (("suspend", "--where", "status=happy", "--yes"), "--where 'status=happy' means nothing"),
        (("suspend", "--where", "key=a", "--where", "key=b", "--yes"), "nothing fits both 'key=b' and"),
    ],
)
def test_what_is_not_clear_is_refused(shop: Shop, arguments: tuple[str, ...], complaint: str) -> None:
    assert complaint in shop.run(*arguments, code=2)
    assert shop.commands() == []


def test_timers_are_asked_about_by_their_bookmark_or_as_the_only_one(shop: Shop) -> None:
    order = str(shop.orders[0])
    shop.run("timers", "reschedule", order, "--to", "2026-03-05T00:00:00+00:00", "--by", "ann")
    shop.run("timers", "fire", order, "0:late", "--by", "ann")
    (_, moved), (_, fired) = shop.commands()
    assert (moved["command"], moved["timer"], moved["due"]) == (
        "reschedule_timer",
        "0:late",
        "2026-03-05T00:00:00+00:00",
    )
    assert (fired["command"], fired["timer"], fired["by"]) == ("fire_timer", "0:late", "ann")
    assert "waits at no timer '0:paid'" in shop.run("timers", "cancel", order, "0:paid", code=1)
    assert "say either --to MOMENT or --in DURATION" in shop.run("timers", "reschedule", order, code=2)
