"""Giving control commands: rows of the inbox, addressed to one instance, for whichever worker holds it or takes it up.

What can be seen to make no sense is refused here, at once. The rest is decided by the worker, whose verdict
stands in the inbox under the command's id.
"""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from holdfast.processor.core import timers
from holdfast.processor.engine.provider import InboxVerdict, Intake, RouteKind
from holdfast.processor.store import inbox
from holdfast.processor.store.connections import Connection
from holdfast.projections import history
from holdfast.schemas.control import DEMANDS, NOT_LOADED, Command
from holdfast.schemas.envelope import Envelope
from holdfast.schemas.errors import (
    CommandRefused,
    InstanceCompleted,
    InstanceError,
    InstanceNotFound,
    InvalidMessage,
    NotInDoubt,
    NotSuspended,
)
from holdfast.schemas.postgres.statements import load

_SQL = load(__package__)
OF_COPIES = DEMANDS | {"abandon"}
"""The commands about what a host has of an instance in memory."""


async def give(
    connection: Connection, instance_id: UUID, command: Command, message_id: str, *, keeps_refusal: bool = False
) -> InboxVerdict:
    """Put a command into the inbox, and return its verdict there: ``buffered``, unless it is known already.

    What is to be done with a copy in memory is ``applied`` at once where no living host has one. With ``keeps_refusal``
    what makes no sense is ``rejected``. The instance's row stays locked until the transaction ends. Raises
    ``InstanceNotFound``, ``InstanceCompleted`` or ``CommandRefused``, and ``InvalidMessage`` for an id under which
    something else came before.
    """
    cursor = await connection.execute(_SQL["to_be_commanded"], {"instance_id": instance_id, "message_id": message_id})
    row = await cursor.fetchone()
    if row is None:
        # What is gone and has a history was closed before.
        gone = await _has_history(connection, instance_id)
        raise InstanceCompleted(instance_id) if gone else InstanceNotFound(instance_id)
    asked = _Asked(instance_id, *row)
    verdict: InboxVerdict = "buffered" if asked.is_held or command.command not in OF_COPIES else "applied"
    reason, detail = NOT_LOADED if verdict == "applied" else None, None
    if asked.known is None:
        try:
            await _check(connection, asked, command)
        except InstanceError as error:
            if not keeps_refusal:
                raise
            verdict, detail = "rejected", str(error)
            reason = "completed" if isinstance(error, InstanceCompleted) else "not_applicable"
    intake = Intake(
        envelope=command.envelope(message_id, asked.key),
        verdict=verdict,
        kind="control",
        reason=reason,
        detail=detail,
        instance_id=instance_id,
    )
    (route,) = await inbox.take_in(connection, asked.app, [intake])
    if route.kind is RouteKind.REUSED:
        raise InvalidMessage("message_id_reused", f"message id {message_id!r} came before with another body")
    return asked.known or verdict


@dataclass(frozen=True, slots=True)
class _Asked:
    """The instance that is asked; ``known`` is the verdict of the command, if the inbox has it already."""

    instance_id: UUID
    app: str
    key: str
    is_completed: bool
    is_suspended: bool
    suspension_reason: str | None
    runs_within: UUID | None
    is_held: bool
    known: InboxVerdict | None


async def _check(connection: Connection, asked: _Asked, command: Command) -> None:
    """Raise what speaks against a command."""
    instance_id = asked.instance_id
    if asked.is_completed:
        raise InstanceCompleted(instance_id)
    if asked.runs_within is not None:
        raise CommandRefused(instance_id, f"runs within instance {asked.runs_within}, which is the one to be asked")
    match command.command:
        case "resume" if asked.suspension_reason == "in_doubt":
            raise CommandRefused(
                instance_id, "has an activity in doubt: say with `holdfast resolve` what became of it, and it goes on"
            )
        case "resume" | "resolve" if not asked.is_suspended:
            raise NotSuspended(instance_id)
        case "suspend" if asked.is_suspended:
            raise CommandRefused(instance_id, "is suspended already")
        case "resolve":
            await _check_doubt(connection, instance_id, command.call)
        case "reschedule_timer" | "fire_timer" | "cancel_timer":
            await _check_timer(connection, asked, command)
    if _subject(command) in await _pending(connection, instance_id):
        raise CommandRefused(instance_id, f"was asked to {command.command} before: no worker has taken that up yet")


async def _check_doubt(connection: Connection, instance_id: UUID, call: str | None) -> None:
    state = await history.state_at(connection, instance_id)
    in_doubt = tuple(key for key, each in state.calls.items() if each.status == "intended")
    if (call is None and len(in_doubt) != 1) or (call is not None and call not in in_doubt):
        raise NotInDoubt(instance_id, in_doubt)


async def _has_history(connection: Connection, instance_id: UUID) -> bool:
    cursor = await connection.execute(_SQL["has_history"], {"instance_id": instance_id})
    return await cursor.fetchone() is not None


async def _check_timer(connection: Connection, asked: _Asked, command: Command) -> None:
    cursor = await connection.execute(_SQL["open_bookmarks"], {"instance_id": asked.instance_id})
    against = timers.objection(command.timer or "", command.command, dict(await cursor.fetchall()))
    if against is None and command.command == "fire_timer" and asked.is_suspended:
        against = "is suspended: what is due fires once it is resumed"
    if against is None and command.command == "reschedule_timer" and timers.moment(command.due) is None:
        against = f"cannot have a timer due at {command.due!r}"
    if against is not None:
        raise CommandRefused(asked.instance_id, against)


def _subject(command: Command) -> tuple[str | None, ...]:
    """Return what is to be done with what: the same twice makes no sense."""
    return command.command, command.call, command.timer


async def _pending(connection: Connection, instance_id: UUID) -> set[tuple[str | None, ...]]:
    """Return what was commanded and no worker has taken up yet."""
    cursor = await connection.execute(_SQL["pending_commands"], {"instance_id": instance_id})
    commands = [
        Command.of(Envelope(message_id=message_id, type=kind, key=key, body=body))
        for message_id, kind, key, body in await cursor.fetchall()
    ]
    return {_subject(each) for each in commands}
