"""Durable business workflows out of RabbitMQ and Postgres, one `async def` each.

This is the front door: every public name, and nothing else. A name is loaded when it is first asked for, so that
importing one part of the package, `holdfast.schemas` say, does not load the others.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from holdfast.processor.client import Client
    from holdfast.processor.engine.activities import ActivityContext, activity_context
    from holdfast.processor.language.activity import Retry
    from holdfast.processor.language.app import App
    from holdfast.processor.language.awaitables import (
        Outcome,
        checkpoint,
        defer,
        delay,
        first_of,
        receive,
        reply,
        send,
        suspend,
    )
    from holdfast.processor.language.compensable import Compensable
    from holdfast.processor.language.compensating import compensate, confirm
    from holdfast.processor.language.gather import gather
    from holdfast.processor.language.participant import InstanceView, Participant, Values
    from holdfast.processor.language.routine import routine
    from holdfast.processor.language.scopes import compensable, no_persist, transacted_receive, transaction
    from holdfast.processor.language.subflows import continue_as_new, run, spawn, start
    from holdfast.processor.language.transaction import Transaction
    from holdfast.schemas.errors import (
        ActivityInDoubt,
        ActivityLost,
        AppError,
        BrokerError,
        Cancelled,
        CommitOutcomeUnknown,
        CommitRefused,
        CompensationError,
        CompensationFailed,
        CompileError,
        DeadLetterNotFound,
        HoldfastError,
        InstanceCompleted,
        InstanceError,
        InstanceLocked,
        InstanceLockLost,
        InstanceNotFound,
        InstanceUnreadable,
        InvalidMessage,
        KeyInUse,
        NotDeterministic,
        NotMigrated,
        NotPersistable,
        NotRemovable,
        NotSuspended,
        ParticipantError,
        PersistenceRequired,
        ProgramUnknown,
        ProgramUnresolvable,
        RemoteError,
        ReplyImpossible,
        ScopeError,
        SettingsError,
        StaleTransaction,
        StorageError,
        SubflowFailed,
        TransactionConflict,
        UnreadableEvent,
        UnreadableValue,
        VersionNotFound,
        WrongExpectedVersion,
    )
    from holdfast.schemas.message import Message

__all__ = [
    "ActivityContext",
    "ActivityInDoubt",
    "ActivityLost",
    "App",
    "AppError",
    "BrokerError",
    "Cancelled",
    "Client",
    "CommitOutcomeUnknown",
    "CommitRefused",
    "Compensable",
    "CompensationError",
    "CompensationFailed",
    "CompileError",
    "DeadLetterNotFound",
    "HoldfastError",
    "InstanceCompleted",
    "InstanceError",
    "InstanceLockLost",
    "InstanceLocked",
    "InstanceNotFound",
    "InstanceUnreadable",
    "InstanceView",
    "InvalidMessage",
    "KeyInUse",
    "Message",
    "NotDeterministic",
    "NotMigrated",
    "NotPersistable",
    "NotRemovable",
    "NotSuspended",
    "Outcome",
    "Participant",
    "ParticipantError",
    "PersistenceRequired",
    "ProgramUnknown",
    "ProgramUnresolvable",
    "RemoteError",
    "ReplyImpossible",
    "Retry",
    "ScopeError",
    "SettingsError",
    "StaleTransaction",
    "StorageError",
    "SubflowFailed",
    "Transaction",
    "TransactionConflict",
    "UnreadableEvent",
    "UnreadableValue",
    "Values",
    "VersionNotFound",
    "WrongExpectedVersion",
    "activity_context",
    "checkpoint",
    "compensable",
    "compensate",
    "confirm",
    "continue_as_new",
    "defer",
    "delay",
    "first_of",
    "gather",
    "no_persist",
    "receive",
    "reply",
    "routine",
    "run",
    "send",
    "spawn",
    "start",
    "suspend",
    "transacted_receive",
    "transaction",
]

_HOMES = {
    "ActivityContext": "holdfast.processor.engine.activities",
    "ActivityInDoubt": "holdfast.schemas.errors",
    "ActivityLost": "holdfast.schemas.errors",
    "App": "holdfast.processor.language.app",
    "AppError": "holdfast.schemas.errors",
    "BrokerError": "holdfast.schemas.errors",
    "Cancelled": "holdfast.schemas.errors",
    "Client": "holdfast.processor.client",
    "CommitOutcomeUnknown": "holdfast.schemas.errors",
    "CommitRefused": "holdfast.schemas.errors",
    "Compensable": "holdfast.processor.language.compensable",
    "CompensationError": "holdfast.schemas.errors",
    "CompensationFailed": "holdfast.schemas.errors",
    "CompileError": "holdfast.schemas.errors",
    "DeadLetterNotFound": "holdfast.schemas.errors",
    "HoldfastError": "holdfast.schemas.errors",
    "InstanceCompleted": "holdfast.schemas.errors",
    "InstanceError": "holdfast.schemas.errors",
    "InstanceLockLost": "holdfast.schemas.errors",
    "InstanceLocked": "holdfast.schemas.errors",
    "InstanceNotFound": "holdfast.schemas.errors",
    "InstanceUnreadable": "holdfast.schemas.errors",
    "InstanceView": "holdfast.processor.language.participant",
    "InvalidMessage": "holdfast.schemas.errors",
    "KeyInUse": "holdfast.schemas.errors",
    "Message": "holdfast.schemas.message",
    "NotDeterministic": "holdfast.schemas.errors",
    "NotMigrated": "holdfast.schemas.errors",
    "NotPersistable": "holdfast.schemas.errors",
    "NotRemovable": "holdfast.schemas.errors",
    "NotSuspended": "holdfast.schemas.errors",
    "Outcome": "holdfast.processor.language.awaitables",
    "Participant": "holdfast.processor.language.participant",
    "ParticipantError": "holdfast.schemas.errors",
    "PersistenceRequired": "holdfast.schemas.errors",
    "ProgramUnknown": "holdfast.schemas.errors",
    "ProgramUnresolvable": "holdfast.schemas.errors",
    "RemoteError": "holdfast.schemas.errors",
    "ReplyImpossible": "holdfast.schemas.errors",
    "Retry": "holdfast.processor.language.activity",
    "ScopeError": "holdfast.schemas.errors",
    "SettingsError": "holdfast.schemas.errors",
    "StaleTransaction": "holdfast.schemas.errors",
    "StorageError": "holdfast.schemas.errors",
    "SubflowFailed": "holdfast.schemas.errors",
    "Transaction": "holdfast.processor.language.transaction",
    "TransactionConflict": "holdfast.schemas.errors",
    "UnreadableEvent": "holdfast.schemas.errors",
    "UnreadableValue": "holdfast.schemas.errors",
    "Values": "holdfast.processor.language.participant",
    "VersionNotFound": "holdfast.schemas.errors",
    "WrongExpectedVersion": "holdfast.schemas.errors",
    "activity_context": "holdfast.processor.engine.activities",
    "checkpoint": "holdfast.processor.language.awaitables",
    "compensable": "holdfast.processor.language.scopes",
    "compensate": "holdfast.processor.language.compensating",
    "confirm": "holdfast.processor.language.compensating",
    "continue_as_new": "holdfast.processor.language.subflows",
    "defer": "holdfast.processor.language.awaitables",
    "delay": "holdfast.processor.language.awaitables",
    "first_of": "holdfast.processor.language.awaitables",
    "gather": "holdfast.processor.language.gather",
    "no_persist": "holdfast.processor.language.scopes",
    "receive": "holdfast.processor.language.awaitables",
    "reply": "holdfast.processor.language.awaitables",
    "routine": "holdfast.processor.language.routine",
    "run": "holdfast.processor.language.subflows",
    "send": "holdfast.processor.language.awaitables",
    "spawn": "holdfast.processor.language.subflows",
    "start": "holdfast.processor.language.subflows",
    "suspend": "holdfast.processor.language.awaitables",
    "transacted_receive": "holdfast.processor.language.scopes",
    "transaction": "holdfast.processor.language.scopes",
}


if not TYPE_CHECKING:  # Type checkers would take it for a promise that there is every name.

    def __getattr__(name: str) -> object:
        """Load a public name from the module it lives in, and keep it."""
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value: object = getattr(import_module(_HOMES[name]), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    """List the public names, loaded or not."""
    return sorted({*globals(), *__all__})
