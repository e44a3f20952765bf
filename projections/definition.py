"""What a subscribed projection is: its tables, and handlers by event type.

    class Totals(Projection):
        create = "create table totals (workflow text primary key, started bigint not null)"

        async def started(self, tx: Transaction, events: Sequence[InstanceStarted], recorded: Sequence[RecordedEvent]):
            await tx.execute("insert into totals … on conflict …", …)

Every public ``async def`` of the class is a handler. After the transaction it takes one event, or a sequence of
them; the annotation says which types, several as a union. Where it takes a third argument, that is the recorded
event, or the sequence of them, each at the place of its event.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from types import UnionType
from typing import Any, ClassVar, Literal, Union, get_args, get_origin, get_type_hints

from holdfast.events.recorded import RecordedEvent
from holdfast.events.types import Event
from holdfast.schemas.errors import AppError

OnPoison = Literal["stop", "skip"]
"""What is done about an event that a handler cannot take: stand still, or record it and go on."""

_SCHEMA = re.compile(r"[a-z_][a-z0-9_]{0,53}")
"""A name in Postgres, short enough for what is put behind it while the projection is rebuilt."""

_EVENTS = frozenset(get_args(Event))
_LISTS = (Sequence, list)


class Projection:
    """Base of subscribed projections, which are registered with ``@app.projection``.

    ``create`` is the SQL that makes its tables, named without a schema: they stand in one of the projection's own, by
    default ``<app>_<name>``. ``version`` is to be raised whenever ``create`` or a handler changes: the tables are then
    rebuilt before the new code goes on. ``on_poison`` says what an event does that a handler cannot take.
    ``page`` is how many events of the log one transaction goes through at most. ``name`` is the class's by default.

    Handlers may only use ``tx`` and what they are given. Those that take one event each are called in the order of
    the log; one that takes a sequence is called once a transaction with all that are of its types, in their order.
    """

    name: ClassVar[str] = ""
    schema: ClassVar[str] = ""
    create: ClassVar[str] = ""
    version: ClassVar[int] = 1
    on_poison: ClassVar[OnPoison] = "stop"
    page: ClassVar[int] = 2000


Handle = Callable[[Any, Sequence[RecordedEvent]], Awaitable[None]]
"""Takes a transaction, and events in the order of the log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscription:
    """What follows the log for an app: a projection, or something else that has no tables (``schema`` is None).

    ``types`` are the event types that it wants, None for all.
    """

    app: str
    name: str
    handle: Handle
    version: int = 1
    schema: str | None = None
    create: str = ""
    types: Collection[str] | None = None
    on_poison: OnPoison = "stop"
    page: int = 2000


def title(kind: type[Projection]) -> str:
    """Return a projection's name: the one it gives itself, or its class's, in the manner of Python's variables."""
    return kind.name or re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", kind.__name__).lower()


def subscription(app: str, kind: type[Projection]) -> Subscription:
    """Return what runs a projection, or raise ``AppError`` for one that cannot be run."""
    name = title(kind)
    schema = kind.schema or f"{app}_{name}".replace("-", "_")
    if not _SCHEMA.fullmatch(schema):
        raise AppError(
            f"projection {name}: {schema!r} is no name for its schema: give it schema = '…' of at most 54 lower-case "
            "letters, digits and underscores"
        )
    if schema == "public" or schema.startswith(("holdfast", "pg_")):
        raise AppError(f"projection {name}: schema {schema!r} is not its own")
    if not kind.create.strip():
        raise AppError(f"projection {name} says nowhere how its tables are created: create = 'create table …'")
    if kind.version < 1 or kind.page < 1:
        raise AppError(f"projection {name}: version and page count from 1")
    if kind.on_poison not in get_args(OnPoison):
        raise AppError(f"projection {name}: on_poison={kind.on_poison!r}: use one of {', '.join(get_args(OnPoison))}")
    handlers = _handlers(name, kind)
    return Subscription(
        app=app,
        name=name,
        version=kind.version,
        schema=schema,
        create=kind.create,
        types=frozenset(t.__name__ for handler in handlers for t in handler.types),
        on_poison=kind.on_poison,
        page=kind.page,
        handle=_in_batches(handlers) if handlers[0].takes_many else _one_by_one(handlers),
    )


@dataclass(frozen=True, slots=True)
class _Handler:
    call: Callable[..., Awaitable[None]]
    types: frozenset[type]
    takes_many: bool
    takes_recorded: bool

    def arguments(self, events: Any, recorded: Any) -> tuple[Any, ...]:
        return (events, recorded) if self.takes_recorded else (events,)


def _handlers(name: str, kind: type[Projection]) -> list[_Handler]:
    found = {
        key: getattr(kind, key)
        for base in reversed(kind.__mro__)
        for key, value in vars(base).items()
        if not key.startswith("_") and inspect.iscoroutinefunction(value)
    }
    if not found:
        raise AppError(f"projection {name} has no handler: an async def whose second parameter is an event")
    try:
        instance = kind()
    except TypeError as error:
        raise AppError(f"projection {name} cannot be made without arguments: {error}") from None
    handlers = [_handler(f"{name}.{key}", function, instance) for key, function in found.items()]
    if len({handler.takes_many for handler in handlers}) > 1:
        raise AppError(f"projection {name} takes some events one by one and others in sequences: let all be alike")
    return handlers


def _handler(place: str, function: Callable[..., Awaitable[None]], instance: Projection) -> _Handler:
    parameters = [*inspect.signature(function).parameters]
    if len(parameters) not in (3, 4):
        raise AppError(f"handler {place} takes a transaction, an event and, if it likes, the recorded event")
    try:
        hint = get_type_hints(function).get(parameters[2])
    except NameError as error:
        raise AppError(f"handler {place}: annotation names an unknown type: {error}") from None
    takes_many = get_origin(hint) in _LISTS
    wanted = get_args(hint)[0] if takes_many else hint
    types: frozenset[Any] = frozenset(get_args(wanted) if get_origin(wanted) in (Union, UnionType) else (wanted,))
    if not types <= _EVENTS:
        raise AppError(
            f"handler {place}: annotate its second parameter with an event type of holdfast.events.types, or with a "
            "Sequence of them"
        )
    return _Handler(getattr(instance, function.__name__), types, takes_many, len(parameters) == 4)


def _in_batches(handlers: Sequence[_Handler]) -> Handle:
    async def handle(tx: Any, recorded: Sequence[RecordedEvent]) -> None:
        for handler in handlers:
            mine = [it for it in recorded if type(it.event) in handler.types]
            if mine:
                await handler.call(tx, *handler.arguments([it.event for it in mine], mine))

    return handle


def _one_by_one(handlers: Sequence[_Handler]) -> Handle:
    async def handle(tx: Any, recorded: Sequence[RecordedEvent]) -> None:
        for it in recorded:
            for handler in handlers:
                if type(it.event) in handler.types:
                    await handler.call(tx, *handler.arguments(it.event, it))

    return handle
