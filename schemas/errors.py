"""Every error that Holdfast raises on purpose, as one tree.

    HoldfastError
    ├── CompileError                 the workflow function cannot become a program
    ├── AppError                     the app does not hang together (checked when it is loaded)
    ├── InvalidMessage               a body or its properties break the message contract
    ├── NotPersistable               a variable has no stored form
    ├── ParticipantError             participants do not go together, or there is none of that class
    ├── ScopeError                   something is awaited in a scope in which it makes no sense
    ├── PersistenceRequired          the workflow needs a persistence provider, and there is none
    ├── CompensationError            a compensable scope is not in the state to be compensated or confirmed
    ├── CompensationFailed           what was to undo, confirm or cancel a scope failed; ends the instance
    ├── ActivityInDoubt              nobody knows whether an activity that must not run twice has run
    ├── ActivityLost                 a request to an activity worker was given up
    ├── SubflowFailed                a subflow was cancelled or terminated
    ├── ReplyImpossible              the last message named no queue for an answer
    ├── ProgramUnknown               this host does not have, or may not run, an instance's program
    ├── ProgramUnresolvable          a stored program needs names that the deployed code lacks
    │   └── UnreadableValue          a stored value names a type that is not declared, or is damaged
    ├── InstanceError
    │   ├── InstanceNotFound         no such instance
    │   ├── VersionNotFound          the instance has no such version
    │   ├── InstanceLocked           another host holds the instance
    │   ├── InstanceLockLost         this host no longer holds the instance
    │   ├── InstanceCompleted        the instance is closed
    │   ├── InstanceUnreadable       the instance's stored state cannot be read here
    │   ├── CommandRefused           what the instance is asked to do makes no sense as it is now
    │   │   ├── NotSuspended         the instance is not suspended
    │   │   └── NotInDoubt           the instance has no such call in doubt
    │   ├── ForkRefused              the instance cannot be forked there, or not in that way
    │   ├── NotRemovable             the instance is persisted, in a host's hands, too young, or awaited
    │   └── KeyInUse                 another instance holds that bookmark or correlation key
    ├── InvalidQuery                 a query asks for what there is not, or for what no index serves
    ├── DeadLetterNotFound           no dead letter has this message id, or more than one has
    ├── ProjectionError
    │   ├── ProjectionNotFound       no such projection of that app
    │   ├── ProjectionStopped        the projection stands still, so what is waited for does not come
    │   └── RebuildRefused           the projection cannot be rebuilt as things are
    ├── ExportRefused                what is asked for cannot be exported, or not to where it is to go
    ├── ReplayError
    │   ├── ReplayNotFound           no replay has this name
    │   ├── ReplayRefused            what is to be replayed, or where to, makes no sense
    │   └── ReplayStopped            a replay cannot go past an event as things are
    ├── WrongExpectedVersion         the stream is not where the writer believed it to be
    ├── StaleTransaction             the stream was appended to by a younger transaction
    ├── UnreadableEvent              the log holds an event that this version does not know
    ├── StorageError                 Postgres refused or cannot be reached
    │   ├── CommitRefused            the database will never take what is to be committed
    │   ├── TransactionConflict      other transactions got in the way of user SQL; it can be run again
    │   ├── NotMigrated              the database lacks the schema, or a part of it
    │   └── CommitOutcomeUnknown     the connection broke while a commit was on its way
    ├── BrokerError                  RabbitMQ refused or cannot be reached
    ├── SettingsError                a setting is missing or out of bounds
    └── NotDeterministic             a scenario under test does not do the same each time

Two stand outside the tree: ``RemoteError``, in place of a user's exception whose class is gone, and
``Cancelled``, a ``BaseException``, which tells a routine to end early. So does ``ContinuedAsNew``, a ``BaseException``
too, tell a whole workflow.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from uuid import UUID


class HoldfastError(Exception):
    """Base of every error raised by Holdfast itself."""


class CompileError(HoldfastError):
    """The function cannot become a program; raised when the decorator runs.

    ``file`` and ``line`` point at the offending source, ``what`` names it and ``mend`` says what
    to write instead.
    """

    def __init__(self, *, file: str, line: int, what: str, mend: str) -> None:
        super().__init__(f"{file}:{line}: {what}. {mend}")
        self.file = file
        self.line = line
        self.what = what
        self.mend = mend


class AppError(HoldfastError):
    """The app is inconsistent: a name is used twice, a type or activity is missing."""


class InvalidMessage(HoldfastError):
    """A message breaks the contract; ``reason`` is the dead letter's machine-readable reason."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class NotPersistable(HoldfastError):
    """A variable holds a value that has no stored form.

    ``variable`` is the name, ``path`` the place inside its value (empty for the value itself),
    ``type_name`` the offending type and ``line`` the source line at which the instance stands.
    """

    def __init__(self, *, variable: str, path: str, type_name: str, mend: str = "", line: int | None = None) -> None:
        super().__init__(variable, path, type_name)
        self.variable = variable
        self.path = path
        self.type_name = type_name
        self.mend = mend
        self.line = line

    def __str__(self) -> str:
        where = f" at line {self.line}" if self.line is not None else ""
        inside = f" (in {self.path})" if self.path else ""
        mend = f". {self.mend}" if self.mend else ""
        return f"variable {self.variable!r}{inside} holds a {self.type_name}, which cannot be persisted{where}{mend}"


class ParticipantError(HoldfastError):
    """Two participants give a value the same name, or a workflow has no participant of the class that is asked for."""


class ScopeError(HoldfastError):
    """Something is awaited where it makes no sense, such as a ``checkpoint()`` inside ``no_persist()``.

    ``what`` names it, ``line`` is where it stands in the workflow's file and ``mend`` says what to write instead.
    """

    def __init__(self, *, what: str, mend: str, line: int | None = None) -> None:
        super().__init__(what, mend, line)
        self.what = what
        self.mend = mend
        self.line = line

    def __str__(self) -> str:
        where = f" (line {self.line})" if self.line is not None else ""
        return f"{self.what}{where}. {self.mend}"


class PersistenceRequired(HoldfastError):
    """A workflow uses ``transaction``, ``compensable`` or ``persist_on_close`` where nothing can be persisted."""


class CompensationError(HoldfastError):
    """A compensable scope cannot be compensated or confirmed now: it is not completed, or that was done already."""


class CompensationFailed(HoldfastError):
    """What was to undo, confirm or cancel a scope raised an exception; the instance ends as faulted."""


class ActivityInDoubt(HoldfastError):
    """A host fell while it ran an activity with ``repeatable=False``, and somebody decided that it failed."""


class ActivityLost(HoldfastError):
    """An activity on a queue came to no end: its worker fell silent, or the broker gave the request up.

    Nobody knows how much of it was done; it counts as a failed attempt.
    """


class SubflowFailed(HoldfastError):
    """The subflow that was awaited was stopped; ``outcome`` is ``cancelled`` or ``terminated``."""

    def __init__(self, workflow: str, outcome: str) -> None:
        super().__init__(workflow, outcome)
        self.workflow = workflow
        self.outcome = outcome

    def __str__(self) -> str:
        return f"subflow {self.workflow} was {self.outcome}"


class ReplyImpossible(HoldfastError):
    """The message that the instance took last names no queue for an answer (``reply_to``)."""


class ProgramUnknown(HoldfastError):
    """This host did not compile the program, and the stored one is absent or not signed with the app's key."""


class ProgramUnresolvable(HoldfastError):
    """A stored program cannot run on the deployed code: names are missing, or its format is not known."""


class UnreadableValue(ProgramUnresolvable):
    """A stored variable cannot be read: its tree names a type that is not declared, or is damaged."""


class InstanceError(HoldfastError):
    """Something about one instance; ``instance_id`` names it."""

    def __init__(self, instance_id: UUID, message: str) -> None:
        super().__init__(message)
        self.instance_id = instance_id


class InstanceNotFound(InstanceError):
    """There is no instance with this id."""

    def __init__(self, instance_id: UUID) -> None:
        super().__init__(instance_id, f"there is no instance {instance_id}")


class VersionNotFound(InstanceError):
    """The instance has no event of the version, or by the moment, that was ``asked`` for; its last is ``last``."""

    def __init__(self, instance_id: UUID, *, asked: int | datetime, last: int) -> None:
        if last == 0:
            why = "is not persisted, so it has no versions yet"
        elif isinstance(asked, datetime):
            why = f"had no event by {asked.isoformat()}"
        else:
            why = f"has versions 1 to {last}, not {asked}"
        super().__init__(instance_id, f"instance {instance_id} {why}")
        self.asked = asked
        self.last = last


class InstanceLocked(InstanceError):
    """Another host holds the instance until ``expiration``."""

    def __init__(self, instance_id: UUID, *, owner: UUID, machine: str, expiration: datetime) -> None:
        super().__init__(
            instance_id,
            f"instance {instance_id} is locked by host {owner} on {machine} until {expiration.isoformat()}",
        )
        self.owner = owner
        self.machine = machine
        self.expiration = expiration


class InstanceLockLost(InstanceError):
    """This host's lease lapsed or another host took the instance; nothing was committed."""

    def __init__(self, instance_id: UUID) -> None:
        super().__init__(instance_id, f"the lock on instance {instance_id} is lost")


class InstanceCompleted(InstanceError):
    """The instance is closed and takes no more commands."""

    def __init__(self, instance_id: UUID) -> None:
        super().__init__(instance_id, f"instance {instance_id} is closed")


class InstanceUnreadable(InstanceError):
    """The stored state has a format that this host does not know, or is damaged."""

    def __init__(self, instance_id: UUID, why: str) -> None:
        super().__init__(instance_id, f"the stored state of instance {instance_id} cannot be read: {why}")


class CommandRefused(InstanceError):
    """What the instance is asked to do makes no sense as it is now, or was asked for a moment ago."""

    def __init__(self, instance_id: UUID, why: str) -> None:
        super().__init__(instance_id, f"instance {instance_id} {why}")


class ForkRefused(InstanceError):
    """The instance cannot be forked there, or not in that way."""

    def __init__(self, instance_id: UUID, why: str) -> None:
        super().__init__(instance_id, f"instance {instance_id} cannot be forked: {why}")


class NotSuspended(CommandRefused):
    """The instance cannot be resumed: it is not suspended."""

    def __init__(self, instance_id: UUID) -> None:
        super().__init__(instance_id, "is not suspended")


class NotInDoubt(CommandRefused):
    """No call of the instance is in doubt, or it has to be said which one is meant; ``calls`` are those that are."""

    def __init__(self, instance_id: UUID, calls: tuple[str, ...]) -> None:
        why = f"has these calls in doubt, name one: {', '.join(calls)}" if calls else "has no activity in doubt"
        super().__init__(instance_id, why)
        self.calls = calls


Obstacle = Literal["persisted", "live", "young", "awaited", "changed"]


class NotRemovable(InstanceError):
    """The instance may not be removed.

    ``obstacle`` is ``persisted`` (it has events), ``live`` (a living host holds it), ``young`` (it has not come to the
    age that the database, or whoever removes it, asks for), ``awaited`` (another instance waits for its end and was not
    told) or ``changed`` (it is no longer of the class that was to be removed).
    """

    def __init__(self, instance_id: UUID, obstacle: Obstacle, why: str) -> None:
        super().__init__(instance_id, f"instance {instance_id} is not removed: {why}")
        self.obstacle = obstacle


class KeyInUse(InstanceError):
    """Another instance already waits for this message type and correlation key."""

    def __init__(self, instance_id: UUID, *, message_type: str, correlation_key: str) -> None:
        super().__init__(
            instance_id,
            f"another instance already waits for {message_type} with key {correlation_key!r}",
        )
        self.message_type = message_type
        self.correlation_key = correlation_key


class InvalidQuery(HoldfastError):
    """A query names a criterion or a value that there is not, or asks for an order that nothing keeps."""


class DeadLetterNotFound(HoldfastError):
    """There is no dead letter with this message id, or several apps have one."""

    def __init__(self, message_id: str, apps: tuple[str, ...] = ()) -> None:
        super().__init__(
            f"several apps have a dead letter {message_id!r}: name one of {', '.join(apps)}"
            if apps
            else f"there is no dead letter {message_id!r}"
        )
        self.message_id = message_id
        self.apps = apps


class ProjectionError(HoldfastError):
    """Something about one projection; ``projection`` is its name."""

    def __init__(self, projection: str, message: str) -> None:
        super().__init__(message)
        self.projection = projection


class ProjectionNotFound(ProjectionError):
    """No worker has ever run a projection of this name."""

    def __init__(self, projection: str) -> None:
        super().__init__(projection, f"there is no projection {projection!r}")


class ProjectionStopped(ProjectionError):
    """The projection stands still at an event that it could not take; ``error`` says why."""

    def __init__(self, projection: str, error: str) -> None:
        super().__init__(projection, f"projection {projection} has stopped: {error}")
        self.error = error


class RebuildRefused(ProjectionError):
    """The projection cannot be rebuilt as things are."""


class ExportRefused(HoldfastError):
    """What is asked for cannot be exported as things are, or cannot be written where it is to go."""


class ReplayError(HoldfastError):
    """Something about history that is to be replayed."""


class ReplayNotFound(ReplayError):
    """There is no replay of this name: none was begun, or it was removed."""

    def __init__(self, name: str) -> None:
        super().__init__(f"there is no replay {name!r}")
        self.name = name


class ReplayRefused(ReplayError):
    """It cannot be replayed: where it is to go, or what is to be replayed, makes no sense as things are."""


class ReplayStopped(ReplayError):
    """A replay stands before an event that is not taken; all before it were.

    ``instance_id`` and ``version`` name the event, ``cursor`` is its place in the log, and ``reason`` says why.
    """

    def __init__(self, instance_id: UUID, version: int, *, cursor: str, reason: str) -> None:
        super().__init__(f"event {version} of instance {instance_id} ({cursor}) was not taken: {reason}")
        self.instance_id = instance_id
        self.version = version
        self.cursor = cursor
        self.reason = reason


class WrongExpectedVersion(HoldfastError):
    """The stream is not at the version that the writer expected."""

    def __init__(self, instance_id: UUID, *, expected: object, actual: int) -> None:
        super().__init__(f"stream {instance_id} is at version {actual}, expected {expected}")
        self.instance_id = instance_id
        self.expected = expected
        self.actual = actual


class StaleTransaction(HoldfastError):
    """The stream was appended to by a younger transaction; run the same again in a new transaction.

    Within a stream the transaction ids never fall, so that readers of the whole log, who read in the
    order of transaction ids, see each stream in the order of its versions.
    """

    def __init__(self, instance_id: UUID) -> None:
        super().__init__(f"stream {instance_id} was appended to by a younger transaction")
        self.instance_id = instance_id


class UnreadableEvent(HoldfastError):
    """The log holds an event whose type or shape this version of Holdfast does not know."""


class StorageError(HoldfastError):
    """Postgres refused the operation or cannot be reached."""


class TransactionConflict(StorageError):
    """The database gave up a transaction with user SQL in favour of another: a deadlock, or no serial order.

    Nothing of it was committed, and it may well pass when it is run again.
    """


class NotMigrated(StorageError):
    """The database lacks Holdfast's schema, or its newest part."""


class CommitRefused(StorageError):
    """The database refuses the transaction for what is in it, as for a deferred constraint of user SQL."""


class CommitOutcomeUnknown(StorageError):
    """The connection broke during a commit and the server could not say what became of it."""


class BrokerError(HoldfastError):
    """RabbitMQ refused the operation or cannot be reached."""


class SettingsError(HoldfastError):
    """A setting is missing or out of bounds."""


class NotDeterministic(HoldfastError):
    """A scenario does not do the same each time, so that its runs cannot be compared."""


class Cancelled(BaseException):
    """Raised at the ``await`` of a routine that is to end early, as when another branch of its ``gather`` failed.

    Like ``asyncio.CancelledError`` it passes ``except Exception``, so that ``finally`` clauses run, and
    is delivered once: what a routine awaits while it cleans up is not cancelled again.
    """


class ContinuedAsNew(BaseException):
    """Raised at the ``await`` of ``continue_as_new``: the workflow unwinds, and ends where it leaves it.

    It passes ``except Exception``, so that ``finally`` clauses run. ``input`` is what the new instance starts from.
    """

    def __init__(self, input: Any) -> None:
        super().__init__(input)
        self.input = input


@dataclass(eq=False)
class RemoteError(Exception):
    """Stands in for an exception whose class no longer exists.

    ``type_name`` is the class that was raised and ``message`` what it said.
    """

    type_name: str
    message: str

    def __post_init__(self) -> None:
        super().__init__(self.type_name, self.message)

    def __str__(self) -> str:
        return f"{self.type_name}: {self.message}"
