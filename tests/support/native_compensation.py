"""What compensable scopes mean in a coroutine: a plain model, to be compared with the machine's.

Python has no scopes that are undone. This says in its own terms what becomes of them: a scope is inside of whatever
scope is open around it, in whichever call; what it has to call is called in the order of registration, or against it.
"""

import sys
from collections.abc import Callable, Generator, Iterable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from types import FrameType
from typing import Any

from holdfast.processor.core.outcomes import Raised, Returned
from holdfast.processor.language.awaitables import Awaitable
from holdfast.processor.language.compensable import Action, Compensable, Ledger
from holdfast.processor.language.compensating import compensate, confirm
from holdfast.schemas.errors import Cancelled, CompensationFailed
from tests.support.native_source import on_its_way, on_their_way

Pending = list[tuple[Awaitable[Any], int]]
"""What a coroutine waits for at once, each with the line of its await."""

Run = Generator[Pending, tuple[int, Returned | Raised] | Cancelled, Any]


class Abandoned(BaseException):
    """Ends what is left of a run that is over."""


@dataclass(eq=False)
class Opened:
    """A scope whose end is open; ``calls`` are the frames in which it was opened, ``branches`` the gathers."""

    scope: Compensable
    around: "tuple[Opened, ...]"
    calls: frozenset[FrameType]
    branches: tuple[object, ...]
    is_compensating: bool
    error: BaseException | None = None


_around: ContextVar[tuple[Opened, ...]] = ContextVar("_around", default=())
_branches: ContextVar[tuple[object, ...]] = ContextVar("_branches", default=())
_is_compensating: ContextVar[bool] = ContextVar("_is_compensating", default=False)


def begin_branch(gathered: object) -> None:
    """Let what runs in this context be a branch of a ``gather``."""
    _branches.set((*_branches.get(), gathered))


class Compensations:
    """The compensable scopes of one run; ``fatal`` is the error that ended it at once."""

    def __init__(self, begun: Callable[[Awaitable[Any], int], Run]) -> None:
        self.opened: list[Opened] = []
        self.fatal: CompensationFailed | None = None
        self.is_abandoned = False
        self.is_settling = False
        self._begun = begun
        self._ledger = Ledger()
        on_their_way.clear()
        _around.set(())
        _branches.set(())
        _is_compensating.set(False)

    def abandon(self, run: Run) -> None:
        """Let a run that is over come to its end without any effect, since Python cannot just drop it."""
        self.is_abandoned = True
        try:
            while True:
                run.send((0, Raised(Abandoned())))
        except BaseException:  # noqa: BLE001 - nobody wants to know any more
            return

    def go_on(self, step: Callable[[], Pending]) -> Pending:
        """Take one step of a run, and raise what ended it, if that was an action that failed."""
        pending = step()
        if self.fatal is not None:
            raise self.fatal
        return pending

    @property
    def is_halted(self) -> bool:
        """Whether nothing may go on."""
        return self.fatal is not None and not self.is_abandoned

    def whole(self, run: Run, *, settles: bool) -> Run:
        """Run a workflow, and confirm at its end what is left, or undo it if it raises and that ``settles``."""
        try:
            value = yield from run
        except BaseException:
            if settles and self.fatal is None:
                yield from self._settle(self._undo)
            raise
        yield from self._settle(self._confirm)
        return value

    def enter(self) -> Compensable:
        """Open a scope."""
        scope = Compensable(self._ledger, "")
        calls = frozenset(_stack(sys._getframe()))
        opened = Opened(scope, _around.get(), calls, _branches.get(), _is_compensating.get())
        _around.set((*opened.around, opened))
        self.opened.append(opened)
        return scope

    def leave(self, frame: FrameType, error: BaseException | None) -> Run:
        """Close the innermost scope, with the exception that leaves it, if one does."""
        opened = _around.get()[-1]
        try:
            with on_its_way(error):
                yield from self.due(frame)
        except Cancelled as cancelled:
            self._close(opened, cancelled)
            raise
        self._close(opened, error)
        is_outermost = not any(other.is_compensating for other in opened.around)
        if error is None and opened.is_compensating and is_outermost:
            inside = [o for o in self.opened if o is opened or opened in o.around]
            yield from shielded(self._carry_out(self._confirm(inside)))

    def due(self, frame: FrameType) -> Run:
        """Cancel the scopes whose exception was caught by a call, or by one that it made, before it awaits anything."""
        if self.is_abandoned:
            raise Abandoned
        failed = [o for o in self.opened if o.scope.status == "failed" and frame in o.calls]
        caught = [o for o in failed if not any(o.error is error for error in _with_causes(on_their_way.values()))]
        actions = self._undo([o for o in self.opened if any(o is each or each in o.around for each in caught)])
        if actions:
            yield from shielded(self._carry_out(actions))

    def called(self, name: str, scope: object, *, is_branch: bool = False) -> Run:
        """Run ``compensate`` or ``confirm``, which is not interrupted."""
        end, function = {
            compensate.name: (self._undo, compensate.function),
            confirm.name: (self._confirm, confirm.function),
        }[name]
        if not isinstance(scope, Compensable) or scope.status != "completed":
            # The language itself says why.
            function(scope).send(None)
            raise AssertionError(f"{name} is not refused")
        inside = [o for o in self.opened if any(each.scope is scope for each in (o, *o.around))]
        actions = end(inside)
        scope.status = "undone" if end == self._undo else "confirmed"
        yield from shielded(self._carry_out(actions), is_told=not is_branch)

    def hand_over(self, gathered: object, error: BaseException) -> None:
        """Let scopes that failed in the branches of a ``gather`` wait for the error that it raises."""
        for opened in self.opened:
            if opened.scope.status == "failed" and gathered in opened.branches:
                opened.error = error

    def _close(self, opened: Opened, error: BaseException | None) -> None:
        _around.set(opened.around)
        opened.scope.status, opened.error = ("completed" if error is None else "failed"), error
        if not opened.scope.actions and (error is None or not any(opened in o.around for o in self.opened)):
            # There is nothing to be done about it, ever.
            self.opened.remove(opened)

    def _undo(self, opened: list[Opened]) -> list[Action]:
        actions: list[Action] = []
        for scope in [o.scope for o in opened]:
            kinds = {action.kind for action in scope.actions}
            if scope.status == "completed":
                actions += [action for action in scope.actions if action.kind == "undo"]
                scope.status = "undone"
            elif scope.status == "failed":
                kind = "cancel" if "cancel" in kinds else "undo"
                actions += [action for action in scope.actions if action.kind == kind]
                scope.status = "cancelled"
        self._forget()
        return sorted(actions, key=lambda action: -action.number)

    def _confirm(self, opened: list[Opened]) -> list[Action]:
        failed = [o for o in opened if o.scope.status == "failed"]
        actions = self._undo([o for o in opened if any(o is each or each in o.around for each in failed)])
        completed = [o.scope for o in opened if o.scope.status == "completed"]
        for scope in completed:
            scope.status = "confirmed"
        self._forget()
        confirming = [action for scope in completed for action in scope.actions if action.kind == "confirm"]
        return actions + sorted(confirming, key=lambda action: action.number)

    def _forget(self) -> None:
        self.opened = [o for o in self.opened if o.scope.status in ("active", "completed", "failed")]

    def _settle(self, end: Callable[[list[Opened]], list[Action]]) -> Run:
        actions = end(self.opened)
        self.is_settling = bool(actions)
        yield from self._carry_out(actions)

    def _carry_out(self, actions: list[Action]) -> Run:
        before = _is_compensating.get()
        _is_compensating.set(True)
        for action in actions:
            yield from self.due(sys._getframe())
            try:
                yield from self._begun(action.call, 0)
            except BaseException as error:  # noqa: BLE001 - an action may raise anything
                self.fatal = CompensationFailed()
                self.fatal.__cause__ = self.fatal.__context__ = error
                # Who drives the run sees to it that nothing goes on.
                yield [(action.call, 0)]
                raise Abandoned from None
        _is_compensating.set(before)


def shielded(run: Run, *, is_told: bool = True) -> Run:
    """Run what is not interrupted; it tells afterwards that it was to be, to whom ``is_told``, whatever came of it."""
    cancelled: Cancelled | None = None
    try:
        pending = next(run)
        while True:
            sent = yield pending
            if isinstance(sent, Cancelled):
                cancelled = sent
            else:
                pending = run.send(sent)
    except StopIteration:
        pass
    except BaseException:
        if cancelled is None or not is_told:
            raise
    if cancelled is not None and is_told:
        raise cancelled


def _with_causes(errors: Iterable[BaseException]) -> list[BaseException]:
    """Return exceptions with all that they were raised from or during."""
    found: list[BaseException] = []
    waiting = list(errors)
    while waiting:
        error = waiting.pop()
        if not any(error is other for other in found):
            found.append(error)
            waiting += [other for other in (error.__cause__, error.__context__) if other is not None]
    return found


def _stack(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back
