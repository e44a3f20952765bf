"""The app: a named set of workflows, activities and message types.

Decorators only register and compile; what depends on names defined later (types, activities) is
checked by ``App.check``, which every command runs before anything else.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import timedelta
from functools import cached_property
from typing import Any, Concatenate, ParamSpec, TypeVar, Unpack, get_args, overload

from holdfast.processor.language import awaitables, compensable, compensating
from holdfast.processor.language.activity import ONCE, Activity, ActivityDecorator, Retry
from holdfast.processor.language.compiler import compile_workflow
from holdfast.processor.language.definition import Definition, Title, entitle, title_of
from holdfast.processor.language.options import WorkflowOptions
from holdfast.processor.language.participant import Participant, Registered
from holdfast.processor.language.routine import RESERVED, Routine, reachable
from holdfast.processor.language.subflows import commits_by_itself, run
from holdfast.processor.language.transaction import Transaction
from holdfast.processor.language.workflow import Workflow
from holdfast.projections.definition import Projection, Subscription, subscription, title
from holdfast.schemas.activity_messages import ActivityHeartbeat, ActivityResult
from holdfast.schemas.errors import AppError, CompileError, InvalidMessage
from holdfast.schemas.identifiers import check_name
from holdfast.schemas.message import Message
from holdfast.schemas.results import SubflowResult
from holdfast.schemas.values import Types, declarable

P = ParamSpec("P")
R = TypeVar("R")
M = TypeVar("M", bound=Message)
K = TypeVar("K", bound=Participant)
S = TypeVar("S", bound=Projection)

_APP_NAME = re.compile(r"[a-z][a-z0-9_-]{0,62}")


RESULTS = (SubflowResult, ActivityResult, ActivityHeartbeat)
"""The message types by which an app hears of subflows and of activities on queues."""


class App:
    """A named set of workflows and activities; exchanges, queues and rows belong to it by name.

    ``name``: lower-case letters, digits, ``-`` and ``_``. ``types``: further classes whose values may be
    kept in variables, beside those that programs and activity signatures name. ``routines``: further
    routines, beside those that programs name, such as those that a helper function calls.
    """

    def __init__(
        self, name: str, *, types: tuple[type, ...] = (), routines: tuple[Routine[..., Any], ...] = ()
    ) -> None:
        if not _APP_NAME.fullmatch(name):
            raise AppError(f"app name {name!r}: use lower-case letters, digits, '-' and '_', a letter first")
        self.name = name
        self.workflows: dict[str, Workflow] = {}
        self.activities: dict[str, Activity[Any, Any]] = {}
        self.participants: dict[type[Participant], Registered] = {}
        self.projections: dict[str, type[Projection]] = {}
        self._declared = types
        self._routines = routines

    @overload
    def activity(self, function: Callable[Concatenate[Transaction, P], Awaitable[R]], /) -> Activity[P, R]: ...
    @overload
    def activity(self, function: Callable[P, Awaitable[R]], /) -> Activity[P, R]: ...
    @overload
    def activity(self, function: Callable[P, R], /) -> Activity[P, R]: ...
    @overload
    def activity(
        self,
        /,
        *,
        name: str | None = None,
        retry: Retry = ...,
        timeout: timedelta | None = None,
        persist_on_close: bool = False,
        repeatable: bool = True,
        queue: str | None = None,
        heartbeat: timedelta | None = None,
    ) -> ActivityDecorator: ...

    def activity(
        self,
        function: Callable[..., Any] | None = None,
        /,
        *,
        name: str | None = None,
        retry: Retry = ONCE,
        timeout: timedelta | None = None,
        persist_on_close: bool = False,
        repeatable: bool = True,
        queue: str | None = None,
        heartbeat: timedelta | None = None,
    ) -> Any:
        """Register an activity; usable with and without arguments.

        ``retry`` says how often it is tried (default: once); ``timeout`` bounds each try, after which
        ``TimeoutError`` is raised. ``persist_on_close`` takes a persistence point when it has ended, in either mode.
        ``repeatable=False`` is for what must never be done twice: if nobody knows whether it was done, the instance is
        suspended as in doubt. ``queue`` names the queue of the activity workers that are to do it;
        ``heartbeat`` is how often such a worker must say that it lives.
        """

        def register(function: Callable[..., Any]) -> Activity[Any, Any]:
            activity: Activity[Any, Any] = Activity(
                function,
                name=_name("activity", name or function.__name__),
                retry=retry,
                timeout=timeout,
                persist_on_close=persist_on_close,
                repeatable=repeatable,
                queue=None if queue is None else _name("queue", queue),
                heartbeat=heartbeat,
            )
            if activity.name in self.activities:
                raise AppError(f"app {self.name} has two activities named {activity.name!r}")
            self.activities[activity.name] = activity
            return activity

        return register if function is None else register(function)

    def workflow(
        self, *, start: type[Message], name: str | None = None, **options: Unpack[WorkflowOptions]
    ) -> Callable[[Callable[[M], Awaitable[R]]], Callable[[M], Awaitable[R]]]:
        """Register and compile a workflow that messages of type ``start`` start.

        ``options`` are those of ``WorkflowOptions``. Raises ``CompileError`` with file, line and mend, and ``AppError``
        for an option that makes no sense.
        """

        def register(function: Callable[[M], Awaitable[R]]) -> Callable[[M], Awaitable[R]]:
            title = _name("workflow", name or function.__name__)
            program = compile_workflow(function, name=title)
            parameters = list(inspect.signature(function).parameters)
            if len(parameters) != 1:
                code = function.__code__
                raise CompileError(
                    file=code.co_filename,
                    line=code.co_firstlineno,
                    what=f"workflow {title} takes {len(parameters)} parameters",
                    mend="A workflow takes one parameter: the message that starts it.",
                )
            if title in self.workflows:
                raise AppError(f"app {self.name} has two workflows named {title!r}")
            for other in self.workflows.values():
                if other.start is start:
                    raise AppError(
                        f"message {start.message_type} starts both {other.name} and {title}; "
                        "one type starts one workflow"
                    )
            self.workflows[title] = Workflow(
                name=title,
                function=function,
                program=program,
                start=start,
                parameter=parameters[0],
                **options,
            )
            entitle(function, Title(definition=self.workflows[title], start=start))
            return function

        return register

    @overload
    def participant(self, kind: type[K], /) -> type[K]: ...
    @overload
    def participant(
        self, /, *, workflows: Sequence[str | Callable[..., Any]] | None = None
    ) -> Callable[[type[K]], type[K]]: ...

    def participant(
        self, kind: type[K] | None = None, /, *, workflows: Sequence[str | Callable[..., Any]] | None = None
    ) -> Any:
        """Register a participant class, for all workflows or for ``workflows``: functions or names.

        Usable with and without arguments. Raises ``AppError`` for a class whose objects cannot be made.
        """

        def register(kind: type[K]) -> type[K]:
            registered = Registered(kind, workflows)
            registered.check()
            if kind in self.participants:
                raise AppError(f"app {self.name} has participant {kind.__name__} already")
            self.participants[kind] = registered
            return kind

        return register if kind is None else register(kind)

    def projection(self, kind: type[S], /) -> type[S]:
        """Register a projection class, whose tables follow the app's events; see ``Projection``.

        Raises ``AppError`` for a name that is taken; ``check`` tells of all else that is wrong with it.
        """
        name = title(kind)
        if name in self.projections:
            raise AppError(f"app {self.name} has two projections named {name!r}")
        self.projections[_name("projection", name)] = kind
        return kind

    @cached_property
    def subscriptions(self) -> tuple[Subscription, ...]:
        """What runs its projections, in the order of their registration."""
        return tuple(subscription(self.name, kind) for kind in self.projections.values())

    def participants_of(self, workflow: str) -> tuple[type[Participant], ...]:
        """Return the participant classes of a workflow, in the order of their registration."""
        return tuple(
            kind for kind, each in self.participants.items() if (names := each.names) is None or workflow in names
        )

    def check(self) -> None:
        """Raise ``AppError`` if something that programs name is missing or does not fit."""
        for definition in self._definitions():
            self._check_names(definition)
            self._check_subflows(definition)
        for workflow in self.workflows.values():
            if not workflow.start.correlation_field:
                raise AppError(
                    f"message {workflow.start.message_type} starts {workflow.name} but has no correlation: "
                    f"declare it as class {workflow.start.__name__}(Message, correlation='<field>')"
                )
        for activity in self.activities.values():
            activity.check()
        for kind, registered in self.participants.items():
            for name in registered.names or ():
                if name not in self.workflows:
                    raise AppError(
                        f"participant {kind.__name__} is for {name}, which is no workflow of app {self.name}"
                    )
        _ = self.messages, self.types, self.subscriptions

    def _check_names(self, definition: Definition) -> None:
        missing = definition.program.unresolved(vars(definition.module))
        if missing:
            raise AppError(
                f"{definition.place}: {definition.kind} {definition.name} uses {', '.join(missing)}, "
                f"which {definition.module.__name__} does not define"
            )
        for value in definition.named():
            if isinstance(value, Activity) and self.activities.get(value.name) is not value:
                raise AppError(
                    f"{definition.kind} {definition.name} uses activity {value.name!r} of another app than {self.name}"
                )
            if (title := title_of(value)) is not None and self._workflow_of(value) is None:
                raise AppError(
                    f"{definition.kind} {definition.name} uses workflow {title.name!r} of another app than {self.name}"
                )

    def _check_subflows(self, definition: Definition) -> None:
        """Refuse the ``run`` of what cannot be run in somebody else's transactions."""
        for call, function in definition.calls():
            child = self._workflow_of(definition.value(call.args[0])) if function is run and call.args else None
            if child is None:
                continue
            if child.persistence != "in_memory":
                raise AppError(
                    f"{definition.place_of(call)}: {definition.kind} {definition.name} runs {child.name}, which "
                    "persists by itself: start() it instead, or make it persistence='in_memory'"
                )
            for inner in child.reached():
                for other, used in inner.calls():
                    if (name := commits_by_itself(used)) is not None:
                        raise AppError(
                            f"{inner.place_of(other)}: {inner.kind} {inner.name} uses {name}, but "
                            f"{definition.name} runs {child.name} in its own transactions "
                            f"({definition.place_of(call)}): start() it instead"
                        )

    def _workflow_of(self, function: object) -> Workflow | None:
        """Return the workflow of this app that was made of a function."""
        title = title_of(function)
        workflow = self.workflows.get(title.name) if title is not None else None
        return workflow if workflow is not None and workflow.function is function else None

    @cached_property
    def routines(self) -> Mapping[str, Routine[Any, Any]]:
        """The routines of the app, by name: those that its programs name, those that these name, and Holdfast's own."""
        return reachable(
            [*compensating.ROUTINES, *self._routines, *(v for w in self.workflows.values() for v in w.named())]
        )

    def _definitions(self) -> list[Definition]:
        return [*self.workflows.values(), *(r.definition for r in self.routines.values())]

    @property
    def activity_queues(self) -> tuple[str, ...]:
        """The queues that its activities are on, in the order of their names."""
        return tuple(sorted({a.queue for a in self.activities.values() if a.queue is not None}))

    @cached_property
    def starts(self) -> Mapping[str, Workflow]:
        """The workflow that each message type starts."""
        return {w.start.message_type: w for w in self.workflows.values()}

    @cached_property
    def messages(self) -> Mapping[str, type[Message]]:
        """The message types that the app knows, by name."""
        found: dict[str, type[Message]] = {kind.message_type: kind for kind in RESULTS}
        for kind in self._classes():
            if not issubclass(kind, Message) or kind is Message or kind in RESULTS:
                continue
            if kind.message_type.startswith(RESERVED):
                raise AppError(
                    f"message type {kind.message_type!r}: names that begin with {RESERVED!r} are Holdfast's own"
                )
            if found.setdefault(kind.message_type, kind) is not kind:
                raise AppError(f"two message types are named {kind.message_type!r}")
        return found

    @cached_property
    def types(self) -> Types:
        """The classes whose values may stand in variables and come back from the store."""
        types = Types()
        for kind in (*awaitables.STORED, *compensable.STORED, *self._declared):
            types.add(kind)
        for kind in self._classes():
            if declarable(kind):
                types.add(kind)
        for definition in self._definitions():
            types.modules.update(definition.imports)
        return types

    def _classes(self) -> list[type]:
        """Return every class that is declared, or named by a program or in the signature of an activity or routine."""
        waiting: list[object] = [*self._declared]
        for definition in self._definitions():
            waiting += definition.named()
        waiting += (workflow.start for workflow in self.workflows.values())
        for routine in self.routines.values():
            waiting += routine.hints.values()
        for activity in self.activities.values():
            waiting += activity.hints.values()
            names = inspect.unwrap(activity.function).__code__.co_names
            module = vars(sys.modules[activity.function.__module__])
            waiting += [c for n in names if _is_exception(c := module.get(n))]
        for registered in self.participants.values():
            waiting += registered.hints
        found: dict[type, None] = {}
        while waiting:
            kind = waiting.pop()
            if get_args(kind):
                waiting += get_args(kind)
            elif isinstance(kind, type) and kind.__module__ != "builtins":
                found[kind] = None
        return list(found)


def _is_exception(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, BaseException)


def _name(what: str, value: str) -> str:
    try:
        name = check_name(what, value)
    except InvalidMessage as error:
        raise AppError(error.detail) from None
    if name.startswith(RESERVED):
        raise AppError(f"{what} {name!r}: names that begin with {RESERVED!r} are Holdfast's own")
    return name
