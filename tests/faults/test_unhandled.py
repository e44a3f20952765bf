"""What becomes of an unhandled exception: each policy, before and after the first persistence point, in a real worker.

The failing burst of each workflow records "second", then fails; its ``finally`` records "finally", and what is
compensable "undone". One that was persisted before has recorded "first" and then taken a message.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, LiteralString

import psycopg
import pytest

from tests.support.commands import holdfast
from tests.support.rabbitmq import Raw, publish, remove_app
from tests.support.workers import Workers, environment, eventually

APP = "policies"
POLICIES = ("suspends", "abandons", "cancels", "terminates")


@dataclass(frozen=True, kw_only=True)
class Row:
    """What the store shows of an instance."""

    status: str
    outcome: str | None = None
    initialized: bool = True
    suspended: str | None = None
    """The reason and the exception's name."""
    events: tuple[str, ...] = ()
    """The types of those of its events that say what became of it."""
    records: tuple[str, ...] = ()
    result: str | None = None


FRESH_SUSPENDED = Row(status="executing", initialized=False, suspended="unhandled_exception ValueError")
FRESH_ABANDONED = Row(status="executing", initialized=False)
CANCELLED = Row(
    status="closed",
    outcome="cancelled",
    events=("InstanceStarted", "InstanceCancelled"),
    records=("second", "finally", "undone"),
)
FAULTED = Row(
    status="closed",
    outcome="faulted",
    events=("InstanceStarted", "InstanceFaulted"),
    records=("second", "finally"),
)
FAULTED_INSIDE = Row(
    status="closed",
    outcome="faulted",
    events=("InstanceStarted", "InstanceFaulted"),
    records=("second", "finally", "undone"),
)
WAITS = Row(status="idle", events=("InstanceStarted",))
CAUGHT = Row(status="closed", outcome="completed", events=("InstanceStarted", "InstanceCompleted"), result="ValueError")

AFTER_THE_EXCEPTION: dict[str, Row] = {
    "suspends-fresh": FRESH_SUSPENDED,
    "suspends-persisted": Row(
        status="idle",
        suspended="unhandled_exception ValueError",
        events=("InstanceStarted", "InstanceSuspended"),
        records=("first",),
    ),
    "abandons-fresh": FRESH_ABANDONED,
    "abandons-persisted": Row(status="idle", events=("InstanceStarted",), records=("first",)),
    "cancels-fresh": CANCELLED,
    "cancels-persisted": Row(
        status="closed",
        outcome="cancelled",
        events=("InstanceStarted", "InstanceCancelled"),
        records=("first", "second", "finally", "undone"),
    ),
    "terminates-fresh": FAULTED,
    "terminates-persisted": Row(
        status="closed",
        outcome="faulted",
        events=("InstanceStarted", "InstanceFaulted"),
        records=("first", "second", "finally"),
    ),
    # A child that was started has its own policy, and its parent hears of it once the child has ended.
    "suspends-starts": WAITS,
    "suspends-starts-child": FRESH_SUSPENDED,
    "abandons-starts": WAITS,
    "abandons-starts-child": FRESH_ABANDONED,
    "cancels-starts": CAUGHT,
    "cancels-starts-child": CANCELLED,
    "terminates-starts": CAUGHT,
    "terminates-starts-child": FAULTED,
    # An exception in one that runs within its caller reaches the caller, whatever the policy of the inner one.
    **{f"{policy}-runs": CAUGHT for policy in POLICIES},
    **{f"{policy}-runs-child": FAULTED_INSIDE for policy in POLICIES},
}

VERDICTS_AFTER_THE_EXCEPTION: dict[str, str] = {
    "suspends-fresh/start": "buffered",
    "suspends-persisted/start": "applied",
    "suspends-persisted/went": "buffered",
    "abandons-fresh/start": "dead_lettered: unhandled_exception",
    "abandons-persisted/start": "applied",
    "abandons-persisted/went": "dead_lettered: unhandled_exception",
    "cancels-fresh/start": "applied",
    "cancels-persisted/start": "applied",
    "cancels-persisted/went": "applied",
    "terminates-fresh/start": "applied",
    "terminates-persisted/start": "applied",
    "terminates-persisted/went": "applied",
    **{f"{policy}-{how}/start": "applied" for policy in POLICIES for how in ("starts", "runs")},
    "suspends-starts-child": "buffered",
    "abandons-starts-child": "dead_lettered: unhandled_exception",
    "cancels-starts-child": "applied",
    "terminates-starts-child": "applied",
}
"""By message id; of a child's start by the child's key."""


def completed(*records: str, result: str, resumed: bool = False) -> Row:
    between = ("InstanceSuspended", "InstanceResumed") if resumed else ()
    return Row(
        status="closed",
        outcome="completed",
        events=("InstanceStarted", *between, "InstanceCompleted"),
        records=records,
        result=result,
    )


AFTER_THE_MEND = AFTER_THE_EXCEPTION | {
    "suspends-fresh": completed("second", "finally", result="suspends-fresh"),
    "suspends-persisted": completed("first", "second", "finally", result="suspends-persisted", resumed=True),
    "abandons-fresh": completed("second", "finally", result="abandons-fresh"),
    "abandons-persisted": completed("first", "second", "finally", result="abandons-persisted"),
    "suspends-starts": completed(result="went well"),
    "suspends-starts-child": completed("second", "finally", result="suspends-starts-child"),
    "abandons-starts": completed(result="went well"),
    "abandons-starts-child": completed("second", "finally", result="abandons-starts-child"),
}

ROWS: LiteralString = """
    select
        i.correlation_key, i.execution_status, i.outcome, i.is_initialized,
        case when i.is_suspended then concat_ws(' ', i.suspension_reason, i.suspension_exception_name) end,
        (select array_agg(e.type order by e.version) from holdfast.events e
         where e.instance_id = i.instance_id and e.type like 'Instance%'),
        (select array_agg(r.step order by r.number) from records r where r.key = i.correlation_key),
        case when i.outcome = 'completed' then i.state ->> 'result' end,
        i.lock_owner
    from holdfast.instances i
"""
VERDICTS: LiteralString = """
    select
        case when message_id like '%/%' then message_id else correlation_key end, concat_ws(': ', verdict, reason)
    from holdfast.inbox
    where kind = 'message' and type <> 'holdfast.SubflowResult'
"""


@dataclass(frozen=True)
class Desk:
    """The worker's app, as its operator sees it."""

    env: dict[str, str]
    database_url: str
    amqp_url: str
    failing: Path

    def ask(self, query: LiteralString) -> list[Any]:
        with psycopg.connect(self.database_url) as connection:
            return connection.execute(query).fetchall()

    def rows(self) -> dict[str, Row]:
        return {
            key: Row(
                status=status,
                outcome=outcome,
                initialized=initialized,
                suspended=suspended,
                events=tuple(events or ()),
                records=tuple(records or ()),
                result=result,
            )
            for key, status, outcome, initialized, suspended, events, records, result, _ in self.ask(ROWS)
        }

    def verdicts(self) -> dict[str, str]:
        return dict(self.ask(VERDICTS))

    def run(self, *arguments: str, code: int = 0) -> list[Any]:
        done = holdfast(*arguments, "--json", env=self.env)
        assert done.returncode == code, done.stdout + done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    def instance_id(self, key: str) -> str:
        with psycopg.connect(self.database_url) as connection:
            query = "select instance_id::text from holdfast.instances where correlation_key = %s"
            row = connection.execute(query, (key,)).fetchone()
        assert row is not None
        return str(row[0])


@pytest.fixture
def desk(database_url: str, amqp_url: str, tmp_path: Path) -> Iterator[Desk]:
    remove_app(amqp_url, APP)
    with psycopg.connect(database_url) as connection:
        connection.execute("create table records (number serial, key text not null, step text not null)")
    env = environment(database_url, amqp_url, lease=3, runnable_detection=0.5, max_attempts=2)
    env["POLICIES_FOLDER"] = str(tmp_path)
    failing = tmp_path / "fails"
    failing.touch()
    with Workers("tests.faults.policies:app", env, tmp_path) as workers:
        worker = workers.start()
        eventually("the worker has started", lambda: '"started"' in worker.output)
        yield Desk(env, database_url, amqp_url, failing)
    remove_app(amqp_url, APP)


def messages() -> Iterator[Raw]:
    """Everything at once: the worker has to keep the instances apart."""
    for policy in POLICIES:
        for key, waits in ((f"{policy}-fresh", False), (f"{policy}-persisted", True)):
            body = json.dumps({"key": key, "waits": waits}).encode()
            yield Raw(body=body, type=policy.title(), message_id=f"{key}/start", key=key)
        for kind in ("Starts", "Runs"):
            key = f"{policy}-{kind.lower()}"
            body = json.dumps({"key": key, "policy": policy}).encode()
            yield Raw(body=body, type=kind, message_id=f"{key}/start", key=key)
        key = f"{policy}-persisted"
        yield Raw(body=json.dumps({"key": key}).encode(), type="Went", message_id=f"{key}/went", key=key)


def test_each_policy_does_what_it_says_and_what_was_kept_goes_on_once_the_cause_is_mended(desk: Desk) -> None:
    publish(desk.amqp_url, APP, messages())
    eventually("every message has its verdict", lambda: desk.verdicts() == VERDICTS_AFTER_THE_EXCEPTION)
    eventually("every instance is where it is to be", lambda: desk.rows() == AFTER_THE_EXCEPTION)
    # What is not persisted is nowhere loaded, and the queries find it.
    classes: LiteralString = "select correlation_key, class, current_machine from holdfast.non_persisted order by 1"
    not_persisted = [
        ("abandons-fresh", "orphan", None),
        ("abandons-starts-child", "orphan", None),
        ("suspends-fresh", "suspended", None),
        ("suspends-starts-child", "suspended", None),
    ]
    eventually("what is not persisted is let go", lambda: desk.ask(classes) == not_persisted)
    letters = {letter["message_id"]: letter["reason"] for letter in desk.run("dead-letters", "list", "--app", APP)}
    child_start = f"{desk.instance_id('abandons-starts-child')}:start"
    assert letters == dict.fromkeys(
        ("abandons-fresh/start", "abandons-persisted/went", child_start), "unhandled_exception"
    )

    # Nobody can do anything about what has ended.
    for key in ("cancels-fresh", "terminates-persisted"):
        desk.run("resume", desk.instance_id(key), code=1)
    again = Raw(body=b'{"key": "cancels-persisted"}', type="Went", message_id="again/went", key="cancels-persisted")
    publish(desk.amqp_url, APP, [again])
    eventually("a later message is rejected", lambda: desk.verdicts().get("again/went") == "rejected: completed")

    desk.failing.unlink()
    for key in ("suspends-fresh", "suspends-persisted", "suspends-starts-child"):
        desk.run("resume", desk.instance_id(key))
    for message_id in letters:
        desk.run("dead-letters", "requeue", message_id, "--app", APP)
    eventually("what was kept has gone on", lambda: desk.rows() == AFTER_THE_MEND)
    assert set(desk.verdicts().values()) == {"applied", "rejected: completed"}
    assert desk.run("dead-letters", "list", "--app", APP) == []
    assert desk.ask("select count(*) from holdfast.non_persisted") == [(0,)]
    verified = holdfast("verify", "--app", APP, env=desk.env)
    assert verified.returncode == 0, verified.stdout + verified.stderr
