"""The command line as a user meets it: real commands, a real worker, and the orders of the example."""

import json
import re
import secrets
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest

from compose.local.services import Services
from examples.orders.publish import orders, payments
from tests.support.commands import HOLDFAST, ROOT, holdfast
from tests.support.rabbitmq import Raw, bind_out, publish, remove_app, take_all
from tests.support.workers import Workers, environment, eventually

APP = "examples.orders.app:app"
BATCH = "shop"
ORDERS = 20
ABSENT = "0199c1a2-0000-7000-8000-000000000000"


@dataclass(frozen=True)
class World:
    """A worker that has handled some orders: 16 paid, 2 never paid, 2 out of stock, and one in an outdated form."""

    database_url: str
    amqp_url: str
    env: dict[str, str]

    def run(self, *arguments: str) -> str:
        """Run a command that succeeds, and return what it prints."""
        done = holdfast(*arguments, env=self.env)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def lines(self, *arguments: str) -> list[dict[str, Any]]:
        """Run a command with ``--json``, and return its lines."""
        return [json.loads(line) for line in self.run(*arguments, "--json").splitlines()]

    def fails(self, *arguments: str) -> tuple[int, str]:
        """Run a command that fails, and return its exit code and its one line of complaint."""
        done = holdfast(*arguments, env=self.env)
        assert done.returncode != 0
        assert re.fullmatch(r"holdfast: .+\n", done.stderr), done.stderr
        return done.returncode, done.stderr

    def order(self, number: int) -> dict[str, Any]:
        """Return the instance of one order."""
        (instance,) = self.lines("instances", "--key", f"{BATCH}-{number}")
        return instance

    def ask(self, query: str, *parameters: object) -> Any:
        """Return the first row of a query."""
        with psycopg.connect(self.database_url) as connection:
            return connection.execute(query, parameters).fetchone()

    def counts(self) -> dict[tuple[bool, bool, str], int]:
        """Return how many instances are persisted or not, suspended or not, and of which outcome."""
        return {
            (it["is_initialized"], it["is_suspended"], it["outcome"] or it["execution_status"]): it["instances"]
            for it in self.lines("instances", "--count")
        }


@pytest.fixture(scope="module")
def world(services: Services, migrated_template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    name = f"holdfast_test_{secrets.token_hex(4)}"
    database_url = services.new_database(name, template=migrated_template)
    env = environment(database_url, services.amqp_url, runnable_detection=1)
    remove_app(services.amqp_url, "orders")
    subprocess.run([sys.executable, "-m", "examples.orders.create_table"], env=env, cwd=ROOT, check=True)
    made = World(database_url, services.amqp_url, env)
    with Workers(APP, env, tmp_path_factory.mktemp("worker")) as workers:
        worker = workers.start()
        eventually("the worker has started", lambda: '"started"' in worker.output)
        messages = [*orders(BATCH, ORDERS), *payments(BATCH, ORDERS, last_digits=range(8))]
        publish(
            services.amqp_url,
            "orders",
            [
                Raw(body=m.model_dump_json().encode(), type=m.message_type, message_id=i, key=m.correlation_key)
                for i, m in messages
            ],
        )
        ended = {
            (True, False, "completed"): ORDERS * 8 // 10,
            (True, True, "idle"): ORDERS // 10,
            (False, True, "executing"): ORDERS // 10,
        }
        eventually("all orders have come to their ends", lambda: made.counts() == ended)
        yield made
    remove_app(services.amqp_url, "orders")
    services.drop_database(name)


def ids(instances: list[dict[str, Any]]) -> list[str]:
    return [instance["instance_id"] for instance in instances]


# Instances.


def test_instances_are_counted_by_status(world: World) -> None:
    printed = world.run("instances", "--count", "--app", "orders")
    rows = [re.split(r"  +", line) for line in printed.splitlines()]
    assert rows[0] == ["app", "workflow", "status", "instances"]
    assert ["orders", "order", "non-persisted, suspended", "2"] in rows


def test_instances_are_listed_newest_first(world: World) -> None:
    found = ids(world.lines("instances"))
    assert len(found) >= ORDERS
    assert found == sorted(found, reverse=True)


def test_instances_are_selected(world: World) -> None:
    assert {it["outcome"] for it in world.lines("instances", "--status", "completed")} == {"completed"}
    suspended = world.lines("instances", "--status", "suspended")
    assert {it["is_suspended"] for it in suspended} == {True}
    assert {it["is_initialized"] for it in suspended} == {True, False}
    assert {it["is_initialized"] for it in world.lines("instances", "--status", "nonpersisted")} == {False}
    assert world.lines("instances", "--status", "executing") == []
    assert world.lines("instances", "--app", "another") == []
    assert world.lines("instances", "--workflow", "another") == []
    assert len(world.lines("instances", "--workflow", "order", "--key", f"{BATCH}-3")) == 1


def test_instances_come_in_pages(world: World) -> None:
    done = holdfast("instances", "--limit", "7", "--json", env=world.env)
    first = ids([json.loads(line) for line in done.stdout.splitlines()])
    assert f"--after {first[-1]}" in done.stderr
    rest = ids(world.lines("instances", "--after", first[-1], "--limit", "1000"))
    assert first + rest == ids(world.lines("instances", "--limit", "1000"))


def test_an_instance_of_a_table_is_one_line_in_a_pipe(world: World) -> None:
    line = next(line for line in world.run("instances", "--status", "suspended").splitlines() if f"{BATCH}-8 " in line)
    assert re.split(r"  +", line)[1:5] == ["order", f"{BATCH}-8", "suspended", "9"]
    assert line.endswith("PaymentMissing")


def test_a_suspended_instance_says_why_and_how_to_resume_it(world: World) -> None:
    instance = world.order(8)
    printed = world.run("show", instance["instance_id"])
    assert re.search(r"^reason +unhandled_exception$", printed, re.MULTILINE)
    assert re.search(r"^exception +examples\.orders\.app\.PaymentMissing: shop-8$", printed, re.MULTILINE)
    assert "line 58: outcome = await first_of(" in printed
    assert f"holdfast resume {instance['instance_id']}" in printed


def test_one_instance_is_one_document(world: World) -> None:
    (shown,) = world.lines("show", world.order(8)["instance_id"])
    assert shown["suspension_exception_name"] == "examples.orders.app.PaymentMissing"
    assert shown["suspension_detail"].endswith("PaymentMissing: shop-8")
    assert {it["kind"] for it in shown["bookmarks"]} == {"message", "timer"}


def test_nonpersisted_instances_are_listed_with_their_class(world: World) -> None:
    found = world.lines("nonpersisted", "--app", "orders")
    assert {it["correlation_key"]: it["class"] for it in found} == {"shop-9": "suspended", "shop-19": "suspended"}
    assert {it["start_message_id"] for it in found} == {"shop-9/placed", "shop-19/placed"}
    assert {it["start_message_verdict"] for it in found} == {"buffered"}
    assert len(world.lines("nonpersisted", "list", "--class", "suspended")) == 2
    assert world.lines("nonpersisted", "list", "--class", "orphan") == []
    assert world.lines("nonpersisted", "list", "--older-than", "1d") == []
    printed = world.run("nonpersisted").splitlines()
    assert re.split(r"  +", printed[0]) == [
        "instance",
        "workflow",
        "key",
        "class",
        "age",
        "expected",
        "start message",
        "verdict",
        "reason",
    ]
    assert [line.rpartition("  ")[2] for line in printed[1:]] == ["OutOfStock", "OutOfStock"]


# History and state.


def test_history_shows_what_happened_at_which_line(world: World) -> None:
    printed = world.run("history", world.order(0)["instance_id"])
    assert re.search(
        r"^   2  ActivityCompleted  frame 0, step \d+, app\.py:56: reservation = await reserve_stock\(",
        printed,
        re.MULTILINE,
    )
    assert "reserve_stock gave 'reservation-of-shop-0'" in printed
    assert "placed = OrderPlaced(order_id='shop-0', item='chair', amount=Decimal('0.99')" in printed
    assert len(re.findall(r"^transaction \d+, ", printed, re.MULTILINE)) == 3


def test_history_has_a_line_of_json_for_each_event(world: World) -> None:
    events = world.lines("history", world.order(0)["instance_id"])
    assert [event["version"] for event in events] == list(range(1, len(events) + 1))
    assert events[0]["type"] == "InstanceStarted"
    assert events[-1]["data"]["reason"] == "completed"
    received = next(event for event in events if event["type"] == "MessageReceived")
    assert received["source"] == "outcome = await first_of("
    assert received["frame"] == "0"
    assert received["cursor"].startswith(f"1-{received['xid']}-")
    # A persistence point is one transaction, and closes with what was persisted.
    last = {event["xid"]: event["type"] for event in events}
    assert set(last.values()) == {"Persisted"}


def test_history_may_be_a_part(world: World) -> None:
    done = holdfast("history", world.order(0)["instance_id"], "--from", "6", "--to", "4", env=world.env)
    assert done.returncode == 2
    assert done.stderr == "holdfast: nothing lies between 6 and 4: the second comes before the first\n"
    events = world.lines("history", world.order(0)["instance_id"], "--from", "3", "--to", "4")
    assert [event["version"] for event in events] == [3, 4]


def test_the_history_of_a_nonpersisted_instance_is_empty_and_says_so(world: World) -> None:
    done = holdfast("history", world.order(9)["instance_id"], env=world.env)
    assert done.returncode == 0
    assert "not persisted" in done.stderr


def test_transactions_show_where_an_instance_committed_and_what_with_it(world: World) -> None:
    instance = world.order(0)["instance_id"]
    commits = world.lines("transactions", instance)
    events = world.lines("history", instance)
    assert [commit["xid"] for commit in commits] == list(dict.fromkeys(event["xid"] for event in events))
    assert [name for commit in commits for name in commit["events"]] == [event["type"] for event in events]
    assert commits[-1]["reason"] == "completed"
    taken = [(m["message_type"], m["verdict"], m["version"]) for commit in commits for m in commit["consumed"]]
    received = [commit["last_version"] for commit in commits if commit["consumed"]]
    assert taken == [("OrderPlaced", "applied", received[0]), ("PaymentReceived", "applied", received[1])]
    printed = world.run("transactions", instance)
    assert re.search(r"^transaction \d+, .+, versions \d+ to \d+: completed$", printed, re.MULTILINE)
    assert re.search(r"^  message taken  PaymentReceived \S+, applied at version \d+$", printed, re.MULTILINE)


def test_state_is_shown_as_of_a_version(world: World) -> None:
    instance = world.order(0)["instance_id"]
    (now,) = world.lines("state", instance)
    assert (now["outcome"], now["result"]) == ("completed", "reservation-of-shop-0")
    (then,) = world.lines("state", instance, "--at", "7")
    assert (then["version"], then["execution_status"]) == (7, "idle")
    assert {it["message_type"] for it in then["bookmarks"].values()} == {"PaymentReceived", None}
    printed = world.run("state", instance, "--at", "7")
    assert re.search(r"^  reservation +'reservation-of-shop-0'$", printed, re.MULTILINE)


def test_state_is_shown_as_of_a_moment(world: World) -> None:
    instance = world.order(0)["instance_id"]
    events = world.lines("history", instance)
    idle = next(event for event in events if event["data"].get("reason") == "idle")
    assert world.lines("state", instance, "--at", idle["recorded_at"])[0]["version"] == idle["version"]
    code, said = world.fails("state", instance, "--at", "2001-01-01")
    assert (code, "had no event by 2001-01-01T" in said) == (1, True)


def test_a_version_that_is_not_there_is_an_error(world: World) -> None:
    assert world.fails("state", world.order(0)["instance_id"], "--at", "99")[0] == 1


@pytest.mark.parametrize(
    "command",
    [
        *("show", "explain", "history", "transactions", "compensation", "state"),
        *("suspend", "resume", "cancel", "terminate", "verify"),
    ],
)
def test_an_instance_that_is_not_there_is_an_error(world: World, command: str) -> None:
    code, said = world.fails(command, ABSENT)
    assert code == 1
    assert f"there is no instance {ABSENT}" in said


# Control.


def test_resume_lets_an_instance_go_on_and_keeps_who_and_why(world: World) -> None:
    instance = world.order(18)["instance_id"]
    (asked,) = world.lines("resume", instance, "--by", "ann", "--why", "the bank is back")
    assert asked["instance_id"] == instance
    query = "select verdict, version from holdfast.inbox where message_id = %s"
    eventually("the command is applied", lambda: world.ask(query, asked["command"])[0] == "applied")
    resumed = next(event for event in world.lines("history", instance) if event["type"] == "InstanceResumed")
    assert resumed["data"] == {"by": "ann", "why": "the bank is back"}
    assert resumed["version"] > 9


def test_resume_runs_a_nonpersisted_instance_from_the_start(world: World) -> None:
    before = world.order(19)
    world.run("resume", before["instance_id"])
    eventually(
        "it ran and was suspended again",
        lambda: (now := world.order(19))["last_updated_time"] > before["last_updated_time"] and now["is_suspended"],
    )


def test_only_what_is_suspended_is_resumed(world: World) -> None:
    assert "is closed" in world.fails("resume", world.order(1)["instance_id"])[1]


def test_a_waiting_instance_is_suspended_and_then_cancelled(world: World) -> None:
    body = '{"order_id": "control-1", "item": "chair", "amount": "3"}'
    world.run("publish", APP, "OrderPlaced", body)

    def order(*condition: str) -> list[dict[str, Any]]:
        return world.lines("instances", "--key", "control-1", *condition)

    eventually("it waits for the payment", lambda: bool(order("--status", "idle")))
    (instance,) = [it["instance_id"] for it in order()]
    assert "a worker of its app takes it up" in world.run("suspend", instance, "--by", "ann", "--why", "a mistake")
    eventually("it is suspended", lambda: bool(order("--status", "suspended")))
    assert re.search(r"^detail +a mistake$", world.run("show", instance), re.MULTILINE)
    assert "has no activity in doubt" in world.fails("resolve", instance, "--retry")[1]
    assert "is suspended already" in world.fails("suspend", instance)[1]
    world.run("cancel", instance, "--by", "ann", "--why", "withdrawn")
    eventually("it is cancelled", lambda: order()[0]["outcome"] == "cancelled")
    said = {event["type"]: event["data"] for event in world.lines("history", instance)}
    assert said["CancelRequested"] == {"by": "ann", "why": "withdrawn"}
    assert "is closed" in world.fails("terminate", instance)[1]


def test_terminate_ends_a_nonpersisted_instance(world: World) -> None:
    instance = world.order(9)["instance_id"]
    world.run("terminate", instance, "--why", "out of stock for good")
    eventually("it is terminated", lambda: world.order(9)["outcome"] == "terminated")
    assert [event["type"] for event in world.lines("history", instance)][:2] == [
        "InstanceStarted",
        "InstanceTerminated",
    ]


# Messages.


def test_a_published_order_is_worked_on(world: World) -> None:
    body = '{"order_id": "cli-1", "item": "chair", "amount": "3"}'
    (published,) = world.lines("publish", APP, "OrderPlaced", body, "--message-id", "cli-1/placed")
    assert published == {"message_id": "cli-1/placed", "type": "OrderPlaced", "key": "cli-1"}
    world.run("publish", APP, "OrderPlaced", body, "--message-id", "cli-1/placed")
    payment = '{"order_id": "cli-1", "reference": "x"}'
    world.run("publish", "orders", "PaymentReceived", payment, "--key-field", "order_id")
    eventually("it is completed", lambda: bool(world.lines("instances", "--key", "cli-1", "--status", "completed")))
    assert len(world.lines("instances", "--key", "cli-1")) == 1


def test_a_body_that_does_not_fit_is_not_published(world: World) -> None:
    code, said = world.fails("publish", APP, "OrderPlaced", '{"order_id": "cli-2", "item": "chair"}')
    assert code == 2
    assert "amount: Field required" in said
    assert world.lines("instances", "--key", "cli-2") == []


def test_an_input_has_one_body_a_line_and_ends_at_the_first_that_does_not_fit(world: World) -> None:
    bodies = '{"order_id": "cli-3", "item": "chair", "amount": 1}\n\n{"order_id": "cli-4"\n{"order_id": "cli-5"}\n'
    command = [f"{HOLDFAST}", "publish", APP, "OrderPlaced", "-", "--json"]
    done = subprocess.run(command, input=bodies, env=world.env, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert [json.loads(line)["key"] for line in done.stdout.splitlines()] == ["cli-3"]
    assert "line 3" in done.stderr
    eventually("the first order is worked on", lambda: bool(world.lines("instances", "--key", "cli-3")))


def test_publishing_to_an_app_that_never_ran_says_so(world: World) -> None:
    code, said = world.fails("publish", f"nobody-{secrets.token_hex(4)}", "Paid", "{}", "--key", "7")
    assert code == 1
    assert "there is no exchange 'holdfast.nobody" in said


# Dead letters.


def test_dead_letters_are_listed_with_their_reason(world: World) -> None:
    found = {it["message_id"]: it for it in world.lines("dead-letters", "list", "--app", "orders")}
    outdated = found["shop-outdated/placed"]
    assert (outdated["box"], outdated["reason"]) == ("inbox", "invalid_body")
    assert "item: Field required" in outdated["detail"]
    assert "NO_ROUTE" in {it["reason"] for it in found.values() if it["box"] == "outbox"}
    assert world.lines("dead-letters", "list", "--app", "another") == []


def test_dead_letters_come_in_pages(world: World) -> None:
    everything = [it["message_id"] for it in world.lines("dead-letters", "list")]
    first = [it["message_id"] for it in world.lines("dead-letters", "list", "--limit", "3")]
    rest = [it["message_id"] for it in world.lines("dead-letters", "list", "--after", first[-1])]
    assert first + rest == everything


def test_a_dead_letter_is_shown_with_its_body(world: World) -> None:
    (shown,) = world.lines("dead-letters", "show", "shop-outdated/placed")
    assert shown["body"] == {"order_id": "shop-outdated"}
    assert shown["body_encoding"] == "json"
    assert world.run("dead-letters", "show", "shop-outdated/placed").endswith('\n{"order_id":"shop-outdated"}\n')


def test_a_dead_letter_is_taken_in_again_and_given_up_again_if_nothing_was_mended(world: World) -> None:
    requeued = datetime.now(UTC).isoformat()
    assert world.lines("dead-letters", "requeue", "shop-outdated/placed") == [
        {"message_id": "shop-outdated/placed", "done": "requeued"}
    ]
    query = (
        "select count(*) from holdfast.inbox where message_id = %s and verdict = 'dead_lettered' and received_at > %s"
    )
    eventually("it is a dead letter again", lambda: world.ask(query, "shop-outdated/placed", requeued)[0] == 1)


def test_a_dropped_dead_letter_is_gone_but_known(world: World) -> None:
    publish(world.amqp_url, "orders", [Raw(body=b"{", type="OrderPlaced", message_id="drop-me", key="k")])
    eventually("it is a dead letter", lambda: world.ask("select 1 from holdfast.inbox where message_id = 'drop-me'"))
    assert world.run("dead-letters", "drop", "drop-me") == "dropped drop-me\n"
    assert world.ask("select verdict, reason, body from holdfast.inbox where message_id = 'drop-me'") == (
        "rejected",
        "dropped",
        None,
    )
    assert "drop-me" not in world.run("dead-letters", "list")


def test_a_message_that_could_not_be_routed_is_sent_once_somebody_listens(world: World) -> None:
    letters = [it for it in world.lines("dead-letters", "list") if it["box"] == "outbox"]
    queue = f"test-{secrets.token_hex(4)}"
    bind_out(world.amqp_url, "orders", queue)
    world.run("dead-letters", "requeue", letters[0]["message_id"], letters[1]["message_id"])
    query = "select count(*) from holdfast.outbox where message_id in (%s, %s)"
    sent = {letters[0]["message_id"], letters[1]["message_id"]}
    eventually("both are published", lambda: world.ask(query, *sent)[0] == 0)
    assert {message.header.properties.message_id for message in take_all(world.amqp_url, queue)} == sent


@pytest.mark.parametrize("command", ["show", "requeue", "drop"])
def test_a_dead_letter_that_is_not_there_is_an_error(world: World, command: str) -> None:
    assert world.fails("dead-letters", command, "nonsense") == (
        1,
        "holdfast: there is no dead letter 'nonsense'\n",
    )


# Verification.


def test_verify_finds_the_store_as_the_log_says(world: World) -> None:
    (found,) = world.lines("verify", "--app", "orders")
    assert found["different"] == []
    assert found["instances"] >= 18
    assert world.run("verify", world.order(0)["instance_id"]) == "checked 1 instances, 11 events: no difference\n"


def test_verify_fails_if_the_store_differs_from_the_log(world: World) -> None:
    instance = world.order(2)["instance_id"]
    change = "update holdfast.instance_rows set correlation_key = %s where instance_id = %s returning 1"
    world.ask(change, "changed", instance)
    done = holdfast("verify", "--json", env=world.env)
    printed = holdfast("verify", env=world.env)
    world.ask(change, "shop-2", instance)
    assert done.returncode == printed.returncode == 1
    (different,) = json.loads(done.stdout)["different"]
    assert different["instance_id"] == instance
    assert different["differences"] == [{"what": "correlation_key", "stored": "changed", "folded": "shop-2"}]
    assert "correlation_key: stored 'changed', but the events say 'shop-2'" in printed.stdout


# The database.


def test_migrate_says_what_it_did(empty_database_url: str, amqp_url: str) -> None:
    env = environment(empty_database_url, amqp_url)
    first = json.loads(holdfast("migrate", "--json", env=env).stdout)
    assert first["applied"]
    assert (first["epoch"], first["granted"], first["missing"]) == (None, [], [])
    assert holdfast("migrate", env=env).stdout == "nothing to do: the database is up to date\n"


@pytest.mark.parametrize("arguments", [["instances"], ["show", ABSENT], ["verify"], ["worker", APP]], ids=" ".join)
def test_a_database_without_the_schema_says_what_to_do(
    empty_database_url: str, amqp_url: str, arguments: list[str]
) -> None:
    done = holdfast(*arguments, env=environment(empty_database_url, amqp_url))
    assert done.returncode == 1
    assert re.fullmatch(r"holdfast: .+run `holdfast migrate`\n", done.stderr)


@pytest.mark.parametrize("arguments", [["instances"], ["migrate"], ["verify"], ["worker", APP]], ids=" ".join)
def test_a_database_that_is_not_there_is_told_in_one_line(amqp_url: str, arguments: list[str], tmp_path: Path) -> None:
    done = holdfast(*arguments, env=environment(f"postgresql:///nowhere?host={tmp_path}", amqp_url))
    assert done.returncode == 1
    assert re.fullmatch(rf"holdfast: .+{tmp_path}.+\n", done.stderr)
