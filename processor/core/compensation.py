"""The compensable scopes of a machine's frames: opened, closed, and taken up again when it is time.

The ledger stands in the root frame's ``$ledger``, so that it is stored with the instance.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

from holdfast.processor.core.frame import ROOT, Frame
from holdfast.processor.core.outcomes import Raised, Returned
from holdfast.processor.language.awaitables import Awaitable, Compensating, Ended, Running
from holdfast.processor.language.compensable import Action, Ledger, is_below
from holdfast.processor.language.compensating import ROUTINES, carry_out
from holdfast.processor.language.program import Program
from holdfast.schemas.errors import ContinuedAsNew, ScopeError

PROGRAMS: Mapping[str, Program] = {routine.name: routine.program for routine in ROUTINES}
"""The programs of Holdfast's own routines, by name."""

BY_HASH: Mapping[str, Program] = {program.hash: program for program in PROGRAMS.values()}


def compensates(frame: Frame) -> bool:
    """Whether a frame is one of those that undo, confirm and cancel; such a one is never interrupted."""
    return frame.program.name in PROGRAMS


class Compensation:
    """Serves the compensable scopes of some frames."""

    __slots__ = ("_frames", "_root")

    def __init__(self, frames: dict[str, Frame]) -> None:
        self._frames = frames
        self._root = frames[ROOT]

    def enter(self, path: str, line: int, transactions: Iterable[str]) -> Returned | Raised:
        """Open a scope in the frame at ``path``, unless that is inside the transaction of a frame."""
        if any(is_below(path, transaction) for transaction in transactions):
            what, mend = "compensable() inside a transaction", "Put the transaction inside the compensable scope."
            return Raised(ScopeError(what=what, mend=mend, line=line))
        ledger: Ledger = self._root.variables.setdefault("$ledger", Ledger())
        return Returned(ledger.open(path))

    def leave(self, path: str, error: BaseException | None) -> list[Action]:
        """Close the innermost scope of the frame at ``path``; return what is to be called at once.

        A scope inside of compensation is confirmed at its end, since nothing is ever going to undo it.
        """
        ledger: Ledger = self._root.variables["$ledger"]
        scope = next(s for s in reversed(ledger.scopes) if s.status == "active" and s.path == path)
        if isinstance(error, ContinuedAsNew):
            # The work is done, as far as this instance is concerned.
            error = None
        ledger.close(scope, error)
        if error is not None or not self._is_compensating(path):
            return []
        is_inner = scope.parent is not None and self._is_compensating(scope.parent.path)
        return [] if is_inner else ledger.confirm(scope)

    def due(self, path: str) -> list[Action]:
        """Return what is to be called before the frame at ``path`` waits, to cancel scopes that failed.

        Those are due whose exception was caught: it is nowhere on its way any more.
        """
        ledger: Ledger | None = self._root.variables.get("$ledger")
        if ledger is None:
            return []
        failed = [scope for scope in ledger.scopes if scope.status == "failed" and is_below(scope.path, path)]
        if not failed:
            return []
        on_their_way = {id(error) for frame in self._frames.values() for error in _pending(frame)}
        return ledger.cancel(scope for scope in failed if id(scope.error) not in on_their_way)

    def hand_over(self, branches: str, error: BaseException) -> None:
        """Let scopes that failed in the branches of a ``gather`` wait for the exception that it raises."""
        ledger: Ledger | None = self._root.variables.get("$ledger")
        for scope in ledger.scopes if ledger is not None else ():
            if scope.status == "failed" and scope.path.startswith(branches):
                scope.error = error

    def interpose(self, path: str, frame: Frame, actions: list[Action], then: Awaitable[Any] | Ended) -> str:
        """Begin what a frame has to wait for before it goes on with something else; return the path of that."""
        frame.variables["$await"] = Compensating(then)
        # Both may come before one await: what is due to be cancelled, then what a scope's end confirms.
        return self._begin(path, frame, actions, number=2 if isinstance(then, Ended) else 1)

    def settle(self, kind: Literal["undo", "confirm"]) -> bool:
        """Begin what is to be called in the end, behind which the root frame ends as it did; False for nothing."""
        root = self._root
        if root.outcome is None:
            raise RuntimeError("the instance has not ended")
        ledger: Ledger | None = root.variables.get("$ledger")
        actions = [] if ledger is None else ledger.settle(kind)
        if not actions:
            return False
        outcome = Ended(root.outcome.value) if isinstance(root.outcome, Returned) else root.outcome.error
        # All that the workflow's own variables could still do is to stand in the way of being stored.
        kept = {name: value for name, value in root.variables.items() if name in {"$ledger", "$cancelled"}}
        root.variables = {**kept, "$ended": outcome, "$await": Running()}
        root.outcome = None
        root.visits += 1
        self._begin(ROOT, root, actions)
        return True

    def settled(self) -> None:
        """Let the root frame end as it did before all was settled."""
        ended = self._root.variables.pop("$ended")
        del self._root.variables["$await"]
        self._root.outcome = Returned(ended.value) if isinstance(ended, Ended) else Raised(ended)

    def _begin(self, path: str, frame: Frame, actions: list[Action], number: int = 1) -> str:
        at = f"{path}.{frame.visits}~{number}"
        self._frames[at] = Frame.begin(carry_out.program, {"actions": actions}, frame.handling)
        return at

    def _is_compensating(self, path: str) -> bool:
        return any(is_below(path, at) and compensates(frame) for at, frame in self._frames.items())


def _pending(frame: Frame) -> Iterator[BaseException]:
    """Yield the exceptions that are to go on when ``finally`` clauses of a waiting frame end, and those behind them."""
    found = [frame.variables.get(slot) for slot in frame.kept if slot.startswith("$pending")]
    seen: set[int] = set()
    while found:
        error = found.pop()
        if isinstance(error, BaseException) and id(error) not in seen:
            seen.add(id(error))
            yield error
            found += (error.__cause__, error.__context__)
