"""Giving control commands: rows of the inbox, addressed to one instance, for whichever worker holds it or takes it up.

What can be seen to make no sense is refused here, at once. The rest is decided by the worker, whose verdict
stands in the inbox under the command's id.
"""

from __future__ import annotations

from uuid import UUID

from holdfast.processor.engine.commands import NOT_LOADED, REQUESTS
from holdfast.processor.engine.provider import Intake
from holdfast.processor.store import inbox
from holdfast.processor.store.connections import Connection
from holdfast.projections import history
from holdfast.schemas.control import Command
from holdfast.schemas.errors import CommandRefused, InstanceCompleted, InstanceNotFound, NotInDoubt, NotSuspended
from holdfast.schemas.message import Envelope
from holdfast.schemas.postgres.statements import load

_SQL = load(__package__)
_OF_COPIES = REQUESTS | {"abandon"}
"""The commands about what a host has of an instance in memory."""


async def give(connection: Connection, instance_id: UUID, command: Command, message_id: str) -> None:
    """Put a command into the inbox; raises ``InstanceNotFound``, ``InstanceCompleted`` or ``CommandRefused``.

    What is to be done with a copy in memory is done where no living host has one. The instance's row stays locked
    until the transaction ends.
    """
    cursor = await connection.execute(_SQL["to_be_commanded"], {"instance_id": instance_id})
    row = await cursor.fetchone()
    if row is None:
        raise InstanceNotFound(instance_id)
    app, key, is_completed, is_suspended, reason, holder, is_held = row
    if is_completed:
        raise InstanceCompleted(instance_id)
    if holder is not None:
        raise CommandRefused(instance_id, f"runs within instance {holder}, which is the one to be asked")
    _check(instance_id, command, is_suspended=is_suspended, is_in_doubt=reason == "in_doubt")
    if command.command == "resolve":
        await _check_doubt(connection, instance_id, command.call)
    if (command.command, command.call) in await _pending(connection, instance_id):
        raise CommandRefused(instance_id, f"was asked to {command.command} before: no worker has taken that up yet")
    is_done = command.command in _OF_COPIES and not is_held
    intake = Intake(
        envelope=command.envelope(message_id, key),
        verdict="applied" if is_done else "buffered",
        kind="control",
        reason=NOT_LOADED if is_done else None,
        instance_id=instance_id,
    )
    await inbox.take_in(connection, app, [intake])


def _check(instance_id: UUID, command: Command, *, is_suspended: bool, is_in_doubt: bool) -> None:
    match command.command:
        case "resume" if is_in_doubt:
            raise CommandRefused(
                instance_id, "has an activity in doubt: say with `holdfast resolve` what became of it, and it goes on"
            )
        case "resume" | "resolve" if not is_suspended:
            raise NotSuspended(instance_id)
        case "suspend" if is_suspended:
            raise CommandRefused(instance_id, "is suspended already")


async def _check_doubt(connection: Connection, instance_id: UUID, call: str | None) -> None:
    state = await history.state_at(connection, instance_id)
    in_doubt = tuple(key for key, each in state.calls.items() if each.status == "intended")
    if (call is None and len(in_doubt) != 1) or (call is not None and call not in in_doubt):
        raise NotInDoubt(instance_id, in_doubt)


async def _pending(connection: Connection, instance_id: UUID) -> set[tuple[str, str | None]]:
    """Return the commands that no worker has taken up yet, each with the call that it is about."""
    cursor = await connection.execute(_SQL["pending_commands"], {"instance_id": instance_id})
    commands = [
        Command.of(Envelope(message_id=message_id, type=kind, key=key, body=body))
        for message_id, kind, key, body in await cursor.fetchall()
    ]
    return {(each.command, each.call) for each in commands}
