"""``holdfast suspend``, ``resume``, ``cancel`` and so on: what somebody asks of one instance, or of many."""

from __future__ import annotations

import getpass
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import typer

from holdfast.processor.cli.options import AppName, DatabaseUrl, InstanceId, JsonDocument, open_client, run
from holdfast.processor.cli.output import emit, hint, say, table
from holdfast.processor.cli.where import Where, criteria_of

if TYPE_CHECKING:
    from holdfast.processor.client import Client
    from holdfast.projections.criteria import Criteria
    from holdfast.schemas.control import Command, Decision

By = Annotated[str | None, typer.Option(help="Who says so; your login name otherwise.", metavar="NAME")]
Why = Annotated[str | None, typer.Option(help="Why, for the history.", metavar="TEXT")]
OneInstance = Annotated[UUID | None, typer.Argument(help="Id of the instance.", metavar="INSTANCE", show_default=False)]

USE = """
        holdfast {name} 0199c1a2-… --why "{why}"

    Instead of an instance, `--where` names many: those that have not ended and fit all that is given. Look
    with `--dry-run` first; without it you are asked before anything is done, or say `--yes`.

        holdfast {name} --where workflow=order --where older=2h --dry-run
        holdfast {name} --where status=idle --where promoted.city=Ulm --yes

    With --json one document: "instance_id", "command", the id that the inbox keeps it under, its "verdict",
    and why it was refused; with --where one line for each instance.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A command: what an instance is asked, in words; a reason to ask it, for the example; and the help."""

    what: str
    why: str
    help: str


COMMANDS = {
    "suspend": Asked(
        what="to stand still once it waits",
        why="the price list is wrong",
        help="""Have an instance stand still until it is resumed.

    What it does at the moment it does until it waits for something. Messages that come for it are
    kept, and its timers fire when it goes on.
""",
    ),
    "resume": Asked(
        what="to go on",
        why="the bank is back",
        help="""Let a suspended instance go on from its last persistence point.

    A worker of its app takes the command up; if none runs, the next one that starts. What the
    instance did since its last persistence point runs again.
""",
    ),
    "cancel": Asked(
        what="to unwind and end",
        why="the customer withdrew",
        help="""Have an instance unwind from where it waits, and end.

    The workflow's finally blocks run, then what it has registered as compensation. One that is
    suspended goes on for that.
""",
    ),
    "terminate": Asked(
        what="to end where it stands",
        why="it cannot be saved",
        help="""End an instance at once: nothing of the workflow runs any more.

    What it does at the moment is cut short. Neither finally blocks nor compensations run;
    `holdfast cancel` is kinder.
""",
    ),
    "abandon": Asked(
        what="to be dropped from memory",
        why="it hangs",
        help="""Drop an instance from memory, back to its last persistence point.

    What it does at the moment is cut short. What had woken it wakes it again, at the next look of any
    worker, and what it did since its last persistence point runs again. To have it stand still
    instead, suspend it before.
""",
    ),
    "persist": Asked(
        what="to be persisted",
        why="before the move",
        help="""Have an instance persisted as soon as that can be.

    In the middle of what it does that is between two activities. In no_persist() and in a transaction
    it waits for their end, for HOLDFAST_PERSIST_PATIENCE at most, then it is rejected. Nothing is to
    be done for an instance that no worker has in memory.
""",
    ),
    "unload": Asked(
        what="to be persisted and let go of",
        why="this machine is to be serviced",
        help="""Have an instance persisted, as `holdfast persist` does, and let go of by its worker.

    One that is in the middle of something goes on from there in any worker. Nothing is to be done for
    an instance that no worker has in memory.
""",
    ),
}


def command(name: str) -> Callable[..., None]:
    """Return the function behind one of the ``COMMANDS``."""
    asked = COMMANDS[name]

    def give(
        instance_id: OneInstance = None,
        *,
        where: Where = None,
        dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list the instances that are meant.")] = False,
        yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
        app: AppName = None,
        by: By = None,
        why: Why = None,
        database_url: DatabaseUrl = None,
        as_json: JsonDocument = False,
    ) -> None:
        if (instance_id is None) == (where is None):
            raise typer.BadParameter("name an instance, or say with --where which ones are meant")
        if instance_id is not None:
            if dry_run:
                raise typer.BadParameter("--dry-run goes with --where")
            give_one(instance_id, command_of(name, by, why), asked.what, database_url, as_json=as_json)
            return
        criteria = criteria_of(where or [])

        async def work() -> None:
            async with open_client(database_url, app) as client:
                if dry_run:
                    await _list(client, criteria, as_json=as_json)
                elif yes or await _is_meant(client, criteria, name):
                    await _give_all(client, command_of(name, by, why), criteria, asked.what, as_json=as_json)

        run(work())

    give.__name__ = name
    give.__doc__ = asked.help + USE.format(name=name, why=asked.why)
    return give


def resolve(
    instance_id: InstanceId,
    *,
    done: Annotated[
        str | None, typer.Option(help="It has run, and returned this JSON value.", metavar="RESULT")
    ] = None,
    retry: Annotated[bool, typer.Option("--retry", help="It has not run: run it now.")] = False,
    fail: Annotated[bool, typer.Option("--fail", help="Raise ActivityInDoubt where it is awaited.")] = False,
    call: Annotated[
        str | None, typer.Option(help="Which call, by its idempotency key, if several are in doubt.", metavar="KEY")
    ] = None,
    by: By = None,
    why: Why = None,
    database_url: DatabaseUrl = None,
    as_json: JsonDocument = False,
) -> None:
    """Say what became of an activity in doubt, so that its instance can go on.

    An activity with repeatable=False is in doubt when the worker that ran it fell. `holdfast show`
    tells which one it is. Find out, at the other end, whether it has run, and say so with one of
    --done, --retry and --fail.

        holdfast resolve 0199c1a2-… --done '{"receipt": 17}' --why "the bank has booked it"

    With --json one document: "instance_id", "command", the id that the inbox keeps it under, and its "verdict".
    """
    if (done is not None) + retry + fail != 1:
        raise typer.BadParameter("say one of --done RESULT, --retry and --fail")
    decision: Decision = "retry" if retry else "fail" if fail else "done"
    try:
        result = None if done is None else json.loads(done)
    except json.JSONDecodeError as error:
        raise typer.BadParameter(f"this is not JSON: {error}", param_hint="--done") from None
    command = command_of("resolve", by, why, call=call, decision=decision, result=result)
    give_one(instance_id, command, "to go on with that", database_url, as_json=as_json)


def give_one(instance_id: UUID, command: Command, what: str, database_url: str | None, *, as_json: bool) -> None:
    """Give one instance a command, and say that it is asked ``what``."""

    async def work() -> None:
        async with open_client(database_url) as client:
            given = await client.command(instance_id, command)
        if as_json:
            emit(given)
        elif given.verdict == "applied":
            say(f"nothing is to be done: no worker has instance {instance_id} in memory")
        else:
            say(f"instance {instance_id} is asked {what}: a worker of its app takes it up")

    run(work())


def command_of(name: str, by: str | None, why: str | None, **about: Any) -> Command:
    """Return a command that this person gives."""
    from holdfast.schemas.control import Command

    return Command(command=name, by=by or login(), why=why, **about)


async def _list(client: Client, criteria: Criteria, *, as_json: bool) -> None:
    from holdfast.processor.cli.condition import condition

    found = [instance async for instance in client.every_instance(**criteria)]
    if as_json:
        for instance in found:
            emit(instance)
        return
    table(
        ["instance", "workflow", "key", "status"],
        [(i.instance_id, i.workflow, i.correlation_key, condition(i)) for i in found],
    )
    hint(f"{_instances(len(found))}. Nothing was done.")


async def _is_meant(client: Client, criteria: Criteria, name: str) -> bool:
    """Ask whether a command is meant for so many instances; refuse where nobody can answer."""
    if not sys.stdin.isatty():
        raise typer.BadParameter("nobody can be asked here: look with --dry-run, then say --yes")
    count = 0
    async for _ in client.every_instance(**criteria):
        count += 1
    return typer.confirm(f"{name} {_instances(count)}?")


async def _give_all(client: Client, command: Command, criteria: Criteria, what: str, *, as_json: bool) -> None:
    asked = done = refused = 0
    async for given in client.command_all(command, **criteria):
        asked += given.verdict == "buffered"
        done += given.verdict == "applied"
        refused += given.refusal is not None
        if as_json:
            emit(given)
        elif given.refusal is not None:
            hint(f"refused: {given.refusal}")
    if not as_json:
        say(f"{_instances(asked)} asked {what}, {done} with nothing to do, {refused} refused")


def _instances(count: int) -> str:
    return "1 instance" if count == 1 else f"{count} instances"


def login() -> str:
    """Return who is logged in."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"
