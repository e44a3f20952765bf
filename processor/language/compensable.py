"""Compensable scopes: what to do to undo, confirm or cancel work, kept as data with the instance.

A scope is *active* while its body runs, then *completed*, or *failed* if an exception left it. From there it becomes
*undone*, *confirmed* or *cancelled*, once. All scopes of an instance whose end is open stand in its ``Ledger``. Actions
are counted across the instance, in the order in which they were registered: undone and cancelled are the newest first,
confirmed the oldest first. What holds for a scope holds for the scopes inside of it.
"""

from __future__ import annotations

from collections.abc import Awaitable as PythonAwaitable
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal, ParamSpec

from holdfast.processor.language.activity import Activity
from holdfast.processor.language.awaitables import ActivityCall, RoutineCall
from holdfast.processor.language.routine import Routine
from holdfast.schemas.errors import CompensationError

P = ParamSpec("P")

Kind = Literal["undo", "confirm", "cancel"]
Status = Literal["active", "completed", "failed", "undone", "confirmed", "cancelled"]


@dataclass(slots=True, eq=False)
class Action:
    """What is to be called to undo, confirm or cancel a scope; ``number`` counts the actions of the instance."""

    kind: Kind
    number: int
    call: ActivityCall[Any] | RoutineCall[Any]

    @property
    def name(self) -> str:
        """The name of the activity or routine."""
        return self.call.activity if isinstance(self.call, ActivityCall) else self.call.routine


@dataclass(slots=True, eq=False)
class Compensable:
    """A scope opened by ``compensable()``; it may be kept in a variable and given to ``compensate`` or ``confirm``.

    ``path`` is the frame that opened it, ``parent`` the scope around it, ``error`` the exception that left it.
    """

    ledger: Ledger = field(repr=False)
    path: str
    parent: Compensable | None = field(default=None, repr=False)
    status: Status = "active"
    actions: list[Action] = field(default_factory=list)
    error: BaseException | None = None

    def undo(self, function: Callable[P, PythonAwaitable[Any]], /, *args: P.args, **kwargs: P.kwargs) -> None:
        """Register an activity or routine, with its arguments, that undoes work of this scope.

        Raises:
            TypeError: ``function`` is neither, or the arguments do not fit.
            CompensationError: the scope's body has ended.
        """
        self._register("undo", function, args, kwargs)

    def confirm(self, function: Callable[P, PythonAwaitable[Any]], /, *args: P.args, **kwargs: P.kwargs) -> None:
        """Register what is to be called when the scope is confirmed; raises as ``undo`` does."""
        self._register("confirm", function, args, kwargs)

    def cancel(self, function: Callable[P, PythonAwaitable[Any]], /, *args: P.args, **kwargs: P.kwargs) -> None:
        """Register what is to be called, instead of the undo actions, when an exception left the scope half-way.

        Raises as ``undo`` does.
        """
        self._register("cancel", function, args, kwargs)

    def _register(self, kind: Kind, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if not isinstance(function, Activity | Routine):
            raise TypeError(f"{kind}() takes an activity or a routine and its arguments, not {function!r}")
        if self.status != "active":
            raise CompensationError(f"{kind}() is for the body of the compensable scope, and this one is {self.status}")
        call: ActivityCall[Any] | RoutineCall[Any] = function(*args, **kwargs)
        self.actions.append(Action(kind, self.ledger.count(), call))

    def is_inside(self, scope: Compensable) -> bool:
        """Whether this is the other scope or one inside of it."""
        found: Compensable | None = self
        while found is not None and found is not scope:
            found = found.parent
        return found is scope


@dataclass(slots=True, eq=False)
class Ledger:
    """The compensable scopes of an instance whose end is open, in the order in which they were opened."""

    scopes: list[Compensable] = field(default_factory=list)
    registered: int = 0

    def count(self) -> int:
        """Return the number of one more action."""
        self.registered += 1
        return self.registered

    def open(self, path: str) -> Compensable:
        """Open a scope in the frame at ``path``, inside the innermost one that is active there."""
        around = (s for s in reversed(self.scopes) if s.status == "active" and is_below(path, s.path))
        scope = Compensable(self, path, next(around, None))
        self.scopes.append(scope)
        return scope

    def close(self, scope: Compensable, error: BaseException | None) -> None:
        """End the body of a scope, with the exception that leaves it, if one does."""
        scope.status, scope.error = ("completed", None) if error is None else ("failed", error)
        if not scope.actions and (error is None or self._family([scope]) == [scope]):
            self.scopes.remove(scope)

    def undo(self, scope: Compensable) -> list[Action]:
        """Take a completed scope as undone; return what is to be called to that end, in order."""
        self._must_be_completed("undone", scope)
        return self._undo([scope, *self._family([scope])])

    def confirm(self, scope: Compensable) -> list[Action]:
        """Take a completed scope as confirmed; return what is to be called to that end, in order."""
        self._must_be_completed("confirmed", scope)
        return self._confirm([scope, *self._family([scope])])

    def cancel(self, scopes: Iterable[Compensable]) -> list[Action]:
        """Take failed scopes as cancelled; return what is to be called to that end, in order."""
        return self._undo(self._family(list(scopes)))

    def settle(self, kind: Literal["undo", "confirm"]) -> list[Action]:
        """Take every scope as undone or confirmed, or cancelled if it failed; return what is to be called."""
        scopes = list(self.scopes)
        return self._undo(scopes) if kind == "undo" else self._confirm(scopes)

    def _must_be_completed(self, what: str, scope: Compensable) -> None:
        if scope.status != "completed":
            raise CompensationError(f"only a completed scope can be {what}, and this one is {scope.status}")

    def _family(self, scopes: list[Compensable]) -> list[Compensable]:
        return [each for each in self.scopes if any(each.is_inside(scope) for scope in scopes)]

    def _undo(self, scopes: list[Compensable]) -> list[Action]:
        actions: dict[int, Action] = {}
        for scope in scopes:
            kinds = {action.kind for action in scope.actions}
            kind: Kind = "cancel" if scope.status == "failed" and "cancel" in kinds else "undo"
            if scope.status in ("completed", "failed"):
                actions |= {action.number: action for action in scope.actions if action.kind == kind}
        self._end(scopes, "undone")
        return [actions[number] for number in sorted(actions, reverse=True)]

    def _confirm(self, scopes: list[Compensable]) -> list[Action]:
        cancelled = self._undo(self._family([scope for scope in scopes if scope.status == "failed"]))
        confirmed = {
            action.number: action
            for scope in scopes
            if scope.status == "completed"
            for action in scope.actions
            if action.kind == "confirm"
        }
        self._end(scopes, "confirmed")
        return [*cancelled, *(confirmed[number] for number in sorted(confirmed))]

    def _end(self, scopes: list[Compensable], completed: Literal["undone", "confirmed"]) -> None:
        for scope in scopes:
            if scope.status in ("completed", "failed"):
                scope.status = completed if scope.status == "completed" else "cancelled"
                scope.error = None
        self.scopes = [scope for scope in self.scopes if scope.status in ("active", "completed", "failed")]


STORED = (Ledger, Compensable, Action)
"""The classes of compensation that Holdfast itself puts into the variables of a waiting instance."""


def is_below(path: str, other: str) -> bool:
    """Whether the frame at ``path`` is the ``other`` one or was called, directly or not, from there."""
    return path == other or path.startswith(f"{other}.")
