"""Look at the messages that were given up, and decide about them.

A message that workers cannot take in (it is no JSON, it does not fit its type, handling it failed too often) and one
that they sent but RabbitMQ cannot route becomes a dead letter, with the reason.

    holdfast dead-letters list
    holdfast dead-letters show MESSAGE
    holdfast dead-letters requeue MESSAGE

Nothing is lost: it is kept until you requeue or drop it.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from holdfast.processor.cli.options import AppName, DatabaseUrl, JsonDocument, JsonLines, Limit, open_client, run

if TYPE_CHECKING:
    from holdfast.projections.queries import DeadLetter, OpenedDeadLetter

MessageId = Annotated[str, typer.Argument(help="Id of the message.", metavar="MESSAGE", show_default=False)]
MessageIds = Annotated[list[str], typer.Argument(help="Ids of messages.", metavar="MESSAGE…", show_default=False)]


def list_(
    *,
    app: AppName = None,
    limit: Limit = 50,
    after: Annotated[str | None, typer.Option(help="Go on behind this dead letter.", metavar="MESSAGE")] = None,
    database_url: DatabaseUrl = None,
    as_json: JsonLines = False,
) -> None:
    """List dead letters, the newest first.

    Box "inbox" means that a message came in, "outbox" that a workflow sent it.

        holdfast dead-letters list --app orders

    With --json one line for each dead letter.
    """

    async def work() -> None:
        async with open_client(database_url, app) as client:
            last = await client.dead_letter(after) if after is not None else None
            found = await client.dead_letters(after=last, limit=limit)
        _print_list(found, limit, as_json=as_json)

    run(work())


def show(
    message_id: MessageId, *, app: AppName = None, database_url: DatabaseUrl = None, as_json: JsonDocument = False
) -> None:
    """Show one dead letter with its reason and its body.

    Its id is the message id that `holdfast dead-letters list` shows.

        holdfast dead-letters show order-17/placed

    With --json one document; "body_encoding" says whether "body" is json, text or base64.
    """

    async def work() -> OpenedDeadLetter:
        async with open_client(database_url, app) as client:
            return await client.dead_letter(message_id)

    _print(run(work()), as_json=as_json)


def requeue(
    message_ids: MessageIds, *, app: AppName = None, database_url: DatabaseUrl = None, as_json: JsonLines = False
) -> None:
    """Give dead letters another chance, once their cause is mended.

    Workers take such a message in, or publish it, as if it had just come. If the cause is still there,
    it becomes a dead letter again.

        holdfast dead-letters requeue order-17/placed order-18/placed

    With --json one line for each message.
    """
    run(_settle("requeue", message_ids, app, database_url, as_json=as_json))


def drop(
    message_ids: MessageIds, *, app: AppName = None, database_url: DatabaseUrl = None, as_json: JsonLines = False
) -> None:
    """Give dead letters up for good; their bodies are removed.

    A message that came in stays known by its id, so that it is not taken in if it is sent again.

        holdfast dead-letters drop order-17/placed

    With --json one line for each message.
    """
    run(_settle("drop", message_ids, app, database_url, as_json=as_json))


async def _settle(
    action: str, message_ids: list[str], app: str | None, database_url: str | None, *, as_json: bool
) -> None:
    from holdfast.processor.cli.output import emit, say

    async with open_client(database_url, app) as client:
        for message_id in message_ids:
            if action == "requeue":
                await client.requeue(message_id)
            else:
                await client.drop(message_id)
            done = "requeued" if action == "requeue" else "dropped"
            if as_json:
                emit({"message_id": message_id, "done": done})
            else:
                say(f"{done} {message_id}")


def _print_list(found: list[DeadLetter], limit: int, *, as_json: bool) -> None:
    from holdfast.processor.cli.output import emit, hint, lately, table

    if as_json:
        for letter in found:
            emit(letter)
    else:
        table(
            ["message", "box", "app", "type", "key", "reason", "detail", "at"],
            [
                (
                    letter.message_id,
                    letter.box,
                    letter.app,
                    letter.type,
                    letter.correlation_key,
                    letter.reason,
                    letter.detail,
                    lately(letter.at),
                )
                for letter in found
            ],
        )
    if len(found) == limit:
        hint(f"There may be more: --after {found[-1].message_id}, or a larger --limit.")


def _print(letter: OpenedDeadLetter, *, as_json: bool) -> None:
    from holdfast.processor.cli.output import body_as_json, details, emit, local, say

    if as_json:
        emit({**asdict(letter), **body_as_json(letter.body)})
        return
    details(
        {
            "message": letter.message_id,
            "box": letter.box,
            "app": letter.app,
            "type": letter.type,
            "correlation key": letter.correlation_key,
            "reason": letter.reason,
            "detail": letter.detail,
            "instance": letter.instance_id,
            "at": local(letter.at),
            "size": None if letter.size is None else f"{letter.size} bytes",
        }
    )
    if letter.body is not None:
        say("")
        say(letter.body.decode(errors="backslashreplace"))
