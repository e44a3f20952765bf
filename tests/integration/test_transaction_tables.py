"""The tables of docs/transactions.md, row by row, on Postgres: the transactions of each workflow, read from the log.

The query is the one that the page gives to users.
"""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from uuid import UUID

import pytest

from holdfast.processor.language.options import Persistence
from holdfast.schemas.activity_messages import ActivityResult
from holdfast.schemas.settings import Settings
from tests.support import table_workflows
from tests.support.hosts import Host, running_host

PAGE = (Path(__file__).parents[2] / "docs" / "transactions.md").read_text(encoding="utf-8")
QUERY = re.findall(r"```sql\n(.*?)```", PAGE, re.DOTALL)[0]

Commits = list[tuple[str, str]]
"""The reason of each transaction of a stream, and the other events in it."""

BEGUN, DONE, COMPLETED = "InstanceStarted", "ActivityCompleted", "InstanceCompleted"
AT_ONCE: Commits = [("completed", f"{BEGUN} {DONE} {DONE} {COMPLETED}")]
ONE_BY_ONE: Commits = [("activity_completed", f"{BEGUN} {DONE}"), ("completed", f"{DONE} {COMPLETED}")]


@dataclass(frozen=True)
class Row:
    """A workflow by the name of its start message, what is done to it, and what its log shows in each mode.

    ``child`` is what the log of its subflow shows, in each mode. ``again`` are the notes of activities that run
    more than once.
    """

    begun: str
    in_memory: Commits
    regular: Commits
    child: tuple[Commits, Commits] = ([], [])
    then: str = ""
    again: tuple[str, ...] = ()


def events(*names: str) -> str:
    return " ".join(names)


ROWS = {
    "only synchronous activities": Row(
        "Synchronous",
        in_memory=[("completed", events(BEGUN, DONE, DONE, DONE, COMPLETED))],
        regular=[
            ("activity_completed", events(BEGUN, DONE)),
            ("activity_completed", DONE),
            ("completed", events(DONE, COMPLETED)),
        ],
    ),
    "asynchronous activities": Row(
        "Asynchronous",
        in_memory=[("completed", events(BEGUN, DONE, DONE, DONE, COMPLETED))],
        regular=[
            ("activity_completed", events(BEGUN, DONE)),
            ("activity_completed", DONE),
            ("completed", events(DONE, COMPLETED)),
        ],
    ),
    "run": Row(
        "OuterBegun",
        in_memory=[("completed", events(BEGUN, DONE, "SubflowStarted", "SubflowEnded", DONE, COMPLETED))],
        regular=[
            ("activity_completed", events(BEGUN, DONE)),
            ("activity_completed", events("SubflowStarted", "SubflowEnded")),
            ("completed", events(DONE, COMPLETED)),
        ],
        child=(AT_ONCE, AT_ONCE),
    ),
    "start": Row(
        "StarterBegun",
        in_memory=[
            ("subflow", events(BEGUN, DONE, "SubflowStarted", "BookmarkOpened")),
            ("completed", events("SubflowEnded", DONE, COMPLETED)),
        ],
        regular=[
            ("subflow", events(BEGUN, DONE, "SubflowStarted", "BookmarkOpened")),
            ("completed", events("SubflowEnded", DONE, COMPLETED)),
        ],
        child=(AT_ONCE, ONE_BY_ONE),
    ),
    "spawn": Row(
        "SpawnerBegun",
        in_memory=[
            ("subflow", events(BEGUN, DONE, "SubflowStarted")),
            ("completed", events(DONE, COMPLETED)),
        ],
        regular=[
            ("subflow", events(BEGUN, DONE, "SubflowStarted")),
            ("completed", events(DONE, COMPLETED)),
        ],
        child=(AT_ONCE, ONE_BY_ONE),
    ),
    "suspend": Row(
        "Halted",
        then="resume",
        in_memory=[
            ("suspended", events(BEGUN, DONE, "InstanceSuspended")),
            ("completed", events("InstanceResumed", DONE, COMPLETED)),
        ],
        regular=[
            ("suspended", events(BEGUN, DONE, "InstanceSuspended")),
            ("completed", events("InstanceResumed", DONE, COMPLETED)),
        ],
    ),
    "an error, under terminate": Row(
        "Terminated",
        in_memory=[("faulted", events(BEGUN, DONE, "ActivityFailed", "InstanceFaulted"))],
        regular=[
            ("activity_completed", events(BEGUN, DONE)),
            ("faulted", events("ActivityFailed", "InstanceFaulted")),
        ],
    ),
    "an error, under cancel": Row(
        "Cancelled",
        in_memory=[("cancelled", events(BEGUN, DONE, "ActivityFailed", DONE, "InstanceCancelled"))],
        regular=[
            ("activity_completed", events(BEGUN, DONE)),
            ("activity_completed", events("ActivityFailed")),
            ("cancelled", events(DONE, "InstanceCancelled")),
        ],
    ),
    "an error, under abandon": Row(
        "Abandoned",
        in_memory=[("checkpoint", events(BEGUN, DONE)), ("suspended", "InstanceSuspended")],
        regular=[
            ("checkpoint", events(BEGUN, DONE)),
            ("activity_completed", DONE),
            ("suspended", "InstanceSuspended"),
        ],
        then="wait for the retries",
        again=("2", "3"),
    ),
    "an error, under abandon_and_suspend": Row(
        "Stopped",
        in_memory=[("checkpoint", events(BEGUN, DONE)), ("suspended", "InstanceSuspended")],
        regular=[
            ("checkpoint", events(BEGUN, DONE)),
            ("activity_completed", DONE),
            ("suspended", "InstanceSuspended"),
        ],
    ),
    "checkpoint": Row(
        "Checked",
        in_memory=[("checkpoint", events(BEGUN, DONE)), ("completed", events(DONE, DONE, COMPLETED))],
        regular=[
            ("checkpoint", events(BEGUN, DONE)),
            ("activity_completed", DONE),
            ("completed", events(DONE, COMPLETED)),
        ],
    ),
    "repeatable=False": Row(
        "Paid",
        in_memory=[
            ("activity_intent", events(BEGUN, DONE, "ActivityIntended")),
            ("completed", events(DONE, DONE, COMPLETED)),
        ],
        regular=[
            ("activity_completed", events(BEGUN, DONE)),
            ("activity_intent", "ActivityIntended"),
            ("activity_completed", DONE),
            ("completed", events(DONE, COMPLETED)),
        ],
    ),
    "an activity on a queue": Row(
        "Mailed",
        then="answer",
        in_memory=[
            ("activity_intent", events(BEGUN, DONE, "ActivityRequested", "BookmarkOpened")),
            ("completed", events("BookmarkClosed", DONE, DONE, COMPLETED)),
        ],
        regular=[
            ("activity_intent", events(BEGUN, DONE, "ActivityRequested", "BookmarkOpened")),
            ("activity_completed", events("BookmarkClosed", DONE)),
            ("completed", events(DONE, COMPLETED)),
        ],
    ),
    "a wait": Row(
        "Waited",
        then="Came",
        in_memory=[
            ("idle", events(BEGUN, DONE, "BookmarkOpened")),
            ("completed", events("MessageReceived", DONE, "MessageSent", DONE, COMPLETED)),
        ],
        regular=[
            ("idle", events(BEGUN, DONE, "BookmarkOpened")),
            ("activity_completed", events("MessageReceived", DONE, "MessageSent")),
            ("completed", events(DONE, COMPLETED)),
        ],
    ),
    "persist_on_close": Row(
        "Closed",
        in_memory=[("persist_on_close", events(BEGUN, DONE, DONE)), ("completed", events(DONE, COMPLETED))],
        regular=[
            ("activity_completed", events(BEGUN, DONE)),
            ("persist_on_close", DONE),
            ("completed", events(DONE, COMPLETED)),
        ],
    ),
    "transaction": Row(
        "Transacted",
        in_memory=[
            ("transaction_completed", events(BEGUN, DONE, DONE, DONE, DONE)),
            ("completed", events(DONE, COMPLETED)),
        ],
        regular=[
            ("activity_completed", events(BEGUN, DONE)),
            ("transaction_completed", events(DONE, DONE, DONE)),
            ("completed", events(DONE, COMPLETED)),
        ],
    ),
    "a transaction that fails": Row(
        "TransactedAndFailed",
        in_memory=[
            ("completed", events(BEGUN, DONE, DONE, "ActivityFailed", "TransactionRolledBack", DONE, COMPLETED)),
        ],
        regular=[
            ("activity_completed", events(BEGUN, DONE)),
            ("activity_completed", events(DONE, "ActivityFailed", "TransactionRolledBack")),
            ("completed", events(DONE, COMPLETED)),
        ],
    ),
    "transacted_receive": Row(
        "Received",
        then="Came",
        in_memory=[
            ("idle", events(BEGUN, DONE, "BookmarkOpened")),
            ("transacted_receive_completed", events("MessageReceived", DONE, DONE)),
            ("completed", events(DONE, COMPLETED)),
        ],
        regular=[
            ("idle", events(BEGUN, DONE, "BookmarkOpened")),
            ("transacted_receive_completed", events("MessageReceived", DONE, DONE)),
            ("completed", events(DONE, COMPLETED)),
        ],
    ),
    "no_persist": Row(
        "Held",
        in_memory=[("completed", events(BEGUN, DONE, DONE, DONE, DONE, COMPLETED))],
        regular=[
            ("activity_completed", events(BEGUN, DONE, DONE, DONE)),
            ("completed", events(DONE, COMPLETED)),
        ],
    ),
    "defer": Row(
        "Deferred",
        in_memory=[("completed", events(BEGUN, DONE, DONE, DONE, COMPLETED, DONE))],
        regular=[
            ("activity_completed", events(BEGUN, DONE, DONE)),
            ("activity_completed", DONE),
            ("completed", events(DONE, COMPLETED)),
        ],
    ),
}

MODES: tuple[Persistence, ...] = ("in_memory", "regular")


@asynccontextmanager
async def prepared(mode: Persistence, url: str) -> AsyncIterator[tuple[Host, ModuleType]]:
    module = table_workflows.load(mode)
    module.ran.clear()
    async with running_host(module.app, url, Settings(max_attempts=2)) as host:
        await host.ask("create table bookings (note text primary key, xid xid8 not null)")
        yield host, module


async def commits(host: Host, instance_id: UUID) -> Commits:
    """Return what the query of the page says."""
    return [(reason, " ".join(names)) for _, reason, names in await host.ask(QUERY, instance_id)]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ROWS)
async def test_the_log_shows_the_transactions_of_the_table(name: str, mode: Persistence, database_url: str) -> None:
    row = ROWS[name]
    async with prepared(mode, database_url) as (host, module):
        instance_id = await host.deliver(getattr(module, row.begun)(key="k"))
        if row.then == "Came":
            await host.deliver(module.Came(key="k"))
        elif row.then == "resume":
            await host.resume(instance_id)
        elif row.then == "answer":
            ((request,),) = await host.ask("select correlation_key from holdfast.outbox")
            await host.tell(ActivityResult(request=request, outcome="completed", result="done"))
        elif row.then:
            await host.until(lambda: _is_suspended(host, instance_id))
        assert await commits(host, instance_id) == (row.in_memory if mode == "in_memory" else row.regular)
        children = await host.ask("select instance_id from holdfast.instances where parent_id = %s", instance_id)
        shown = row.child[MODES.index(mode)]
        assert [await commits(host, child) for (child,) in children] == ([shown] if shown else [])
        once = [note for note in module.ran if note not in row.again]
        assert len(once) == len(set(once))


@pytest.mark.parametrize("name", ROWS)
def test_the_page_says_what_the_log_shows(name: str) -> None:
    (line,) = [line for line in PAGE.splitlines() if line.startswith(f"| {name} |")]
    _, _, in_memory, regular, *_ = [cell.strip() for cell in line.split("|")]
    row = ROWS[name]
    assert (in_memory, regular) == (shown(row.in_memory), shown(row.regular))


def shown(commits: Commits) -> str:
    """Return transactions as the page counts them."""
    return f"{len(commits)}: {', '.join(reason for reason, _ in commits)}"


@pytest.mark.parametrize("mode", MODES)
async def test_a_subflow_that_is_run_commits_in_a_transaction_of_its_parent(
    mode: Persistence, database_url: str
) -> None:
    async with prepared(mode, database_url) as (host, module):
        instance_id = await host.deliver(module.OuterBegun(key="k"))
        ((child,),) = await host.ask("select instance_id from holdfast.instances where parent_id = %s", instance_id)
        (xid,) = await host.xids(child)
        assert xid in await host.xids(instance_id)


async def _is_suspended(host: Host, instance_id: UUID) -> bool:
    rows = await host.ask("select is_suspended from holdfast.instances where instance_id = %s", instance_id)
    return bool(rows[0][0])
