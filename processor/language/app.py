"""The app: a named set of workflows, activities and message types.

Decorators only register and compile; what depends on names defined later (types, activities) is
checked by ``App.check``, which every command runs before anything else.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
import textwrap
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from types import ModuleType
from typing import Any, Concatenate, Literal, ParamSpec, TypeVar, get_args, overload

from holdfast.processor.language import awaitables
from holdfast.processor.language.activity import ONCE, Activity, ActivityDecorator, Retry
from holdfast.processor.language.compiler import compile_workflow
from holdfast.processor.language.program import Program
from holdfast.processor.language.transaction import Transaction
from holdfast.schemas.errors import AppError, CompileError, InvalidMessage
from holdfast.schemas.identifiers import check_name
from holdfast.schemas.message import Message
from holdfast.schemas.values import Types, declarable

Persistence = Literal["regular", "in_memory"]
OnUnhandled = Literal["abandon_and_suspend", "abandon"]

P = ParamSpec("P")
R = TypeVar("R")
M = TypeVar("M", bound=Message)

_APP_NAME = re.compile(r"[a-z][a-z0-9_-]{0,62}")


@dataclass(frozen=True, kw_only=True)
class Workflow:
    """A registered workflow: its compiled program and how it is run.

    ``parameter`` is the name under which the function takes its start message.
    """

    name: str
    function: Callable[..., Any]
    program: Program
    start: type[Message]
    parameter: str
    persistence: Persistence
    on_unhandled: OnUnhandled
    expected_lifetime: timedelta | None

    @cached_property
    def module(self) -> ModuleType:
        """The module whose names the program's blocks resolve."""
        return sys.modules[self.function.__module__]

    @cached_property
    def receives(self) -> frozenset[str]:
        """The message types that the program waits for somewhere, its start type included."""
        return frozenset({self.start.message_type, *(m.message_type for m in self._received())})

    @property
    def imports(self) -> frozenset[str]:
        """The modules that the function itself imports, by name."""
        return frozenset(
            alias.name for node in ast.walk(self._tree) if isinstance(node, ast.Import) for alias in node.names
        )

    def named(self) -> Iterator[object]:
        """Yield what the program's global names stand for in the module as it is now."""
        for name in self.program.names:
            if hasattr(self.module, name):
                yield getattr(self.module, name)

    @cached_property
    def _tree(self) -> ast.Module:
        return ast.parse(textwrap.dedent(inspect.getsource(self.function)))

    def _received(self) -> Iterator[type[Message]]:
        """Yield the types awaited by ``receive``; all message types named, if one is not a plain name."""
        for call in ast.walk(self._tree):
            if not isinstance(call, ast.Call) or self._value(call.func) is not awaitables.receive:
                continue
            wanted = self._value(call.args[0]) if call.args else None
            if isinstance(wanted, type) and issubclass(wanted, Message):
                yield wanted
            else:
                yield from (m for m in self.named() if isinstance(m, type) and issubclass(m, Message))

    def _value(self, node: ast.expr) -> object:
        if isinstance(node, ast.Name):
            return getattr(self.module, node.id, None)
        if isinstance(node, ast.Attribute):
            return getattr(self._value(node.value), node.attr, None)
        return None


class App:
    """A named set of workflows and activities; exchanges, queues and rows belong to it by name.

    ``name``: lower-case letters, digits, ``-`` and ``_``. ``types``: further classes whose values may be
    kept in variables, beside those that programs and activity signatures name.
    """

    def __init__(self, name: str, *, types: tuple[type, ...] = ()) -> None:
        if not _APP_NAME.fullmatch(name):
            raise AppError(f"app name {name!r}: use lower-case letters, digits, '-' and '_', a letter first")
        self.name = name
        self.workflows: dict[str, Workflow] = {}
        self.activities: dict[str, Activity[Any, Any]] = {}
        self._declared = types

    @overload
    def activity(self, function: Callable[Concatenate[Transaction, P], Awaitable[R]], /) -> Activity[P, R]: ...
    @overload
    def activity(self, function: Callable[P, Awaitable[R]], /) -> Activity[P, R]: ...
    @overload
    def activity(self, function: Callable[P, R], /) -> Activity[P, R]: ...
    @overload
    def activity(
        self, /, *, name: str | None = None, retry: Retry = ..., timeout: timedelta | None = None
    ) -> ActivityDecorator: ...

    def activity(
        self,
        function: Callable[..., Any] | None = None,
        /,
        *,
        name: str | None = None,
        retry: Retry = ONCE,
        timeout: timedelta | None = None,
    ) -> Any:
        """Register an activity; usable with and without arguments.

        ``retry`` says how often it is tried (default: once); ``timeout`` bounds each try, after which
        ``TimeoutError`` is raised.
        """

        def register(function: Callable[..., Any]) -> Activity[Any, Any]:
            activity: Activity[Any, Any] = Activity(
                function, name=_name("activity", name or function.__name__), retry=retry, timeout=timeout
            )
            if activity.name in self.activities:
                raise AppError(f"app {self.name} has two activities named {activity.name!r}")
            self.activities[activity.name] = activity
            return activity

        return register if function is None else register(function)

    def workflow(
        self,
        *,
        start: type[Message],
        name: str | None = None,
        persistence: Persistence = "regular",
        on_unhandled: OnUnhandled = "abandon_and_suspend",
        expected_lifetime: timedelta | None = None,
    ) -> Callable[[Callable[[M], Awaitable[R]]], Callable[[M], Awaitable[R]]]:
        """Register and compile a workflow that messages of type ``start`` start.

        ``persistence``: ``regular`` commits each activity's result before the next one starts,
        ``in_memory`` commits a whole burst at once. ``on_unhandled`` says what an unhandled exception
        does: ``abandon_and_suspend`` goes back to the last persistence point and suspends, ``abandon``
        goes back and retries the message. Raises ``CompileError`` with file, line and mend.
        """
        if persistence not in get_args(Persistence):
            raise AppError(f"persistence={persistence!r}: use one of {', '.join(get_args(Persistence))}")
        if on_unhandled not in get_args(OnUnhandled):
            raise AppError(f"on_unhandled={on_unhandled!r}: use one of {', '.join(get_args(OnUnhandled))}")

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
                persistence=persistence,
                on_unhandled=on_unhandled,
                expected_lifetime=expected_lifetime,
            )
            return function

        return register

    def check(self) -> None:
        """Raise ``AppError`` if something that programs name is missing or does not fit."""
        for workflow in self.workflows.values():
            missing = workflow.program.unresolved(vars(workflow.module))
            if missing:
                code = workflow.function.__code__
                raise AppError(
                    f"{code.co_filename}:{code.co_firstlineno}: workflow {workflow.name} uses "
                    f"{', '.join(missing)}, which {workflow.function.__module__} does not define"
                )
            for value in workflow.named():
                if isinstance(value, Activity) and self.activities.get(value.name) is not value:
                    raise AppError(
                        f"workflow {workflow.name} uses activity {value.name!r} of another app than {self.name}"
                    )
            if not workflow.start.correlation_field:
                raise AppError(
                    f"message {workflow.start.message_type} starts {workflow.name} but has no correlation: "
                    f"declare it as class {workflow.start.__name__}(Message, correlation='<field>')"
                )
        for activity in self.activities.values():
            if activity.is_record and not activity.is_async:
                raise AppError(f"record activity {activity.name} is a plain function: make it an async def")
        _ = self.messages, self.types

    @cached_property
    def starts(self) -> Mapping[str, Workflow]:
        """The workflow that each message type starts."""
        return {w.start.message_type: w for w in self.workflows.values()}

    @cached_property
    def messages(self) -> Mapping[str, type[Message]]:
        """The message types that the app knows, by name."""
        found: dict[str, type[Message]] = {}
        for kind in self._classes():
            if not issubclass(kind, Message) or kind is Message:
                continue
            if found.setdefault(kind.message_type, kind) is not kind:
                raise AppError(f"two message types are named {kind.message_type!r}")
        return found

    @cached_property
    def types(self) -> Types:
        """The classes whose values may stand in variables and come back from the store."""
        types = Types()
        for kind in (*awaitables.STORED, *self._declared):
            types.add(kind)
        for kind in self._classes():
            if declarable(kind):
                types.add(kind)
        for workflow in self.workflows.values():
            types.modules.update(workflow.imports)
        return types

    def _classes(self) -> list[type]:
        """Return every class that is declared, or named by a program or by an activity's signature."""
        waiting: list[object] = [*self._declared]
        for workflow in self.workflows.values():
            waiting += [workflow.start, *workflow.named()]
        for activity in self.activities.values():
            waiting += activity.hints.values()
            names = inspect.unwrap(activity.function).__code__.co_names
            module = vars(sys.modules[activity.function.__module__])
            waiting += [c for n in names if _is_exception(c := module.get(n))]
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
        return check_name(what, value)
    except InvalidMessage as error:
        raise AppError(error.detail) from None
