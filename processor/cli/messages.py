"""``holdfast messages``."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from holdfast.processor.cli.options import AppName, DatabaseUrl, JsonLines, Limit, moment, open_client, run

if TYPE_CHECKING:
    from holdfast.projections.inbox import Criteria, InboxMessage, MessageTally, VerdictCount


class Verdict(StrEnum):
    """What ``--verdict`` selects."""

    applied = "applied"
    buffered = "buffered"
    rejected = "rejected"
    expired = "expired"
    dead_lettered = "dead_lettered"


def messages(
    *,
    app: AppName = None,
    verdict: Annotated[Verdict | None, typer.Option(help="Only those with this verdict.")] = None,
    type_: Annotated[str | None, typer.Option("--type", help="Only those of this type.", metavar="TYPE")] = None,
    key: Annotated[str | None, typer.Option(help="Only those with this correlation key.", metavar="KEY")] = None,
    instance: Annotated[
        UUID | None, typer.Option(help="Only those that led to this instance, or are addressed to it.")
    ] = None,
    since: Annotated[
        str | None, typer.Option(help="Only those received from this moment on.", metavar="MOMENT")
    ] = None,
    count: Annotated[bool, typer.Option("--count", help="Print only how many there are of each verdict.")] = False,
    tally: Annotated[
        bool,
        typer.Option(
            "--tally", help="Print only how many came to each verdict, ever, and how many are buffered, by type."
        ),
    ] = False,
    all_: Annotated[bool, typer.Option("--all", help="Print all of them, as JSON lines, as they come.")] = False,
    limit: Limit = 50,
    after: Annotated[int | None, typer.Option(help="Go on behind this sequence number.", metavar="N")] = None,
    database_url: DatabaseUrl = None,
    as_json: JsonLines = False,
) -> None:
    """List the messages that were taken in, the newest first, and what became of each.

    A message is applied (an instance took it), buffered (stored until one does), rejected (it came too late),
    expired, or dead_lettered (given up). Commands of operators are listed too, as kind "control".

        holdfast messages --count
        holdfast messages --tally --type PaymentReceived
        holdfast messages --verdict buffered --type PaymentReceived
        holdfast messages --verdict rejected --all
        holdfast messages --key order-17 --since 2026-01-31T12:00:00+01:00 --json

    A message that was published several times under its id is there once: of a duplicate nothing is stored.
    --count counts what is there. --tally prints counts that are kept with every commit, without commands and with
    the messages that retention has removed.

    With --json or --all one line for each message; with --count one for each kind, verdict and reason; with --tally
    one for each type and verdict.
    """
    from holdfast.processor.cli.output import emit

    if (count or all_) and after is not None:
        raise typer.BadParameter(f"{'--count' if count else '--all'} is about all that fit: leave out --after.")
    if count and all_:
        raise typer.BadParameter("say either --count or --all.")
    criteria: Criteria = {
        "verdict": None if verdict is None else verdict.value,
        "type": type_,
        "correlation_key": key,
        "instance_id": instance,
        "since": moment("--since", since) if since is not None else None,
    }

    others = {name for name, given in criteria.items() if given is not None} - {"type", "verdict"}
    if tally and (others or count or all_ or after is not None):
        raise typer.BadParameter("--tally counts by --app, --type and --verdict, and by nothing else.")

    async def work() -> None:
        async with open_client(database_url, app) as client:
            if count:
                _print_counts(await client.count_messages(**criteria), as_json=as_json)
            elif tally:
                found = await client.message_tally(type=criteria["type"], verdict=criteria["verdict"])
                _print_tally(found, as_json=as_json)
            elif all_:
                async for message in client.every_message(**criteria):
                    emit(message)
            else:
                page = await client.messages(**criteria, after=after, limit=limit)
                _print(page, limit, as_json=as_json)

    run(work())


def _print_counts(found: list[VerdictCount], *, as_json: bool) -> None:
    from holdfast.processor.cli.output import emit, table

    if as_json:
        for each in found:
            emit(each)
    else:
        table(
            ["app", "kind", "verdict", "reason", "messages"],
            [(it.app, it.kind, it.verdict, it.reason, it.messages) for it in found],
        )


def _print_tally(found: list[MessageTally], *, as_json: bool) -> None:
    from holdfast.processor.cli.output import emit, table

    if as_json:
        for tally in found:
            emit(tally)
    else:
        table(["app", "type", "verdict", "messages"], [(t.app, t.type, t.verdict, t.messages) for t in found])


def _print(found: list[InboxMessage], limit: int, *, as_json: bool) -> None:
    from holdfast.processor.cli.output import emit, hint, lately, table

    if as_json:
        for message in found:
            emit(message)
    else:
        table(
            ["sequence", "message", "kind", "type", "key", "verdict", "reason", "instance", "version", "received"],
            [
                (
                    m.sequence,
                    m.message_id,
                    m.kind,
                    m.type,
                    m.correlation_key,
                    m.verdict,
                    m.reason,
                    m.instance_id,
                    m.version,
                    lately(m.received_at),
                )
                for m in found
            ],
        )
    if len(found) == limit:
        hint(f"There may be more: --after {found[-1].sequence}, or a larger --limit.")
