"""``holdfast suspend``, ``resume``, ``cancel``, ``terminate`` and ``resolve``: what somebody asks of one instance."""

from __future__ import annotations

import getpass
import json
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated

import typer

from holdfast.processor.cli.options import DatabaseUrl, InstanceId, JsonDocument, open_client, run
from holdfast.processor.cli.output import emit, say

if TYPE_CHECKING:
    from uuid import UUID

    from holdfast.processor.client import Client
    from holdfast.schemas.control import Decision

By = Annotated[str | None, typer.Option(help="Who says so; your login name otherwise.", metavar="NAME")]
Why = Annotated[str | None, typer.Option(help="Why, for the history.", metavar="TEXT")]


def suspend(
    instance_id: InstanceId,
    *,
    by: By = None,
    why: Why = None,
    database_url: DatabaseUrl = None,
    as_json: JsonDocument = False,
) -> None:
    """Have an instance stand still until it is resumed.

    What it does at the moment it does until it waits for something. Messages that come for it are
    kept, and its timers fire when it goes on.

        holdfast suspend 0199c1a2-… --why "the price list is wrong"

    With --json one document: "instance_id", and "command", the id that the inbox keeps it under.
    """
    _give(
        instance_id,
        lambda client: client.suspend(instance_id, by=by or _login(), why=why),
        "to stand still once it waits",
        database_url,
        as_json=as_json,
    )


def resume(
    instance_id: InstanceId,
    *,
    by: By = None,
    why: Why = None,
    database_url: DatabaseUrl = None,
    as_json: JsonDocument = False,
) -> None:
    """Let a suspended instance go on from its last persistence point.

    A worker of its app takes the command up; if none runs, the next one that starts. What the
    instance did since its last persistence point runs again.

        holdfast resume 0199c1a2-… --why "the bank is back"

    With --json one document: "instance_id", and "command", the id that the inbox keeps it under.
    """
    _give(
        instance_id,
        lambda client: client.resume(instance_id, by=by or _login(), why=why),
        "to go on",
        database_url,
        as_json=as_json,
    )


def cancel(
    instance_id: InstanceId,
    *,
    by: By = None,
    why: Why = None,
    database_url: DatabaseUrl = None,
    as_json: JsonDocument = False,
) -> None:
    """Have an instance unwind from where it waits, and end.

    The workflow's finally blocks run, then what it has registered as compensation. One that is
    suspended goes on for that.

        holdfast cancel 0199c1a2-… --why "the customer withdrew"

    With --json one document: "instance_id", and "command", the id that the inbox keeps it under.
    """
    _give(
        instance_id,
        lambda client: client.cancel(instance_id, by=by or _login(), why=why),
        "to unwind and end",
        database_url,
        as_json=as_json,
    )


def terminate(
    instance_id: InstanceId,
    *,
    by: By = None,
    why: Why = None,
    database_url: DatabaseUrl = None,
    as_json: JsonDocument = False,
) -> None:
    """End an instance where it stands: nothing of the workflow runs any more.

    Neither finally blocks nor compensations run; `holdfast cancel` is kinder.

        holdfast terminate 0199c1a2-… --why "it cannot be saved"

    With --json one document: "instance_id", and "command", the id that the inbox keeps it under.
    """
    _give(
        instance_id,
        lambda client: client.terminate(instance_id, by=by or _login(), why=why),
        "to end where it stands",
        database_url,
        as_json=as_json,
    )


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

    With --json one document: "instance_id", and "command", the id that the inbox keeps it under.
    """
    if (done is not None) + retry + fail != 1:
        raise typer.BadParameter("say one of --done RESULT, --retry and --fail")
    decision: Decision = "retry" if retry else "fail" if fail else "done"
    try:
        result = None if done is None else json.loads(done)
    except json.JSONDecodeError as error:
        raise typer.BadParameter(f"this is not JSON: {error}", param_hint="--done") from None
    _give(
        instance_id,
        lambda client: client.resolve(instance_id, decision, by=by or _login(), why=why, call=call, result=result),
        "to go on with that",
        database_url,
        as_json=as_json,
    )


def _give(
    instance_id: UUID, ask: Callable[[Client], Awaitable[str]], what: str, database_url: str | None, *, as_json: bool
) -> None:
    async def work() -> str:
        async with open_client(database_url) as client:
            return await ask(client)

    command = run(work())
    if as_json:
        emit({"instance_id": instance_id, "command": command})
    else:
        say(f"instance {instance_id} is asked {what}: a worker of its app takes it up")


def _login() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"
