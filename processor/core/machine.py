"""The live form of an instance: it asks for what it cannot do itself, and goes on with the answers.

A machine knows no clock and does no I/O. ``advance`` runs the instance's code until it waits and
returns what it asks for; ``answer`` hands an answer back, upon which ``advance`` is called again. While
all frames wait, ``images`` gives them as data, and ``restore`` makes an equal machine of that data.

Every frame has a *path*, which is never used again within its instance:

    0         the workflow
    0.3       the routine that frame 0 called with its third await, or the subflow that it ran
    0.4-2     the second branch of the gather that frame 0 reached with its fourth await; a frame of its
              own if the branch is a routine or a subflow, else the place of what it waits for
    0.4-2.1   the routine that the frame 0.4-2 called with its first await
    0.5~1     what undoes, confirms or cancels before frame 0's fifth await goes on, or at the end
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from holdfast.events.types import Where
from holdfast.processor.core.cancelling import cancel, ends_scope
from holdfast.processor.core.compensation import BY_HASH, PROGRAMS, Compensation, compensates
from holdfast.processor.core.frame import ROOT, Frame, FrameImage
from holdfast.processor.core.gathers import branches_of, end_branch, gathers, open_branch
from holdfast.processor.core.outcomes import Raised, Returned
from holdfast.processor.language.awaitables import (
    Awaitable,
    CompensableScope,
    Compensating,
    Ended,
    Enter,
    Gather,
    Gathering,
    Leave,
    RoutineCall,
    Running,
    SubflowCall,
)
from holdfast.processor.language.compensable import is_below
from holdfast.processor.language.program import Program
from holdfast.processor.language.routine import RESERVED
from holdfast.schemas.errors import AppError, Cancelled, CompensationFailed, ScopeError

__all__ = ["MAX_DEPTH", "ROOT", "Ask", "Left", "Machine", "Routines", "place"]

MAX_DEPTH = 500
"""How many routines may call each other, the workflow included, before Python's ``RecursionError``."""

Routines = Callable[[str], Program]
"""Gives the program of a routine by its name; ``AppError`` if there is no such routine."""


# One is made for each await, and a frozen one takes twice as long to make.
@dataclass(slots=True, kw_only=True)
class Ask:
    """Something that a frame, or a branch of a ``gather``, waits for; not to be changed.

    ``path`` names the frame; ``step`` and ``line`` say where it stands, and ``visit`` counts the awaits
    of that frame, from 1, so that path, step and visit together name this ask once and for all. A branch
    asks as a frame would that stands where the ``gather`` does and awaits that one thing.
    """

    path: str
    step: int
    line: int
    visit: int
    awaited: Awaitable[Any]

    @property
    def where(self) -> Where:
        """The place, as events have it."""
        return Where(self.path, self.step, self.line)


@dataclass(frozen=True, slots=True)
class Left:
    """A subflow whose frame, at ``path``, has ended; ``child`` is what it was entered with."""

    child: str
    path: str
    outcome: Returned | Raised


def _no_routines(name: str) -> Program:
    raise AppError(f"there is no routine {name!r} here")


class Machine:
    """The frames of one instance, by path. Made by ``start`` or ``restore``.

    ``withdrawn`` are the paths whose asks the last ``advance`` took back, since they were cancelled:
    these must not be answered any more. ``left`` are the subflows that ended in it. ``transactions`` are the paths
    of frames with an open transaction scope, as far as whoever serves those scopes tells.
    """

    __slots__ = ("_asked", "_compensation", "_routines", "_taken_back", "frames", "left", "transactions", "withdrawn")

    def __init__(self, frames: dict[str, Frame], routines: Routines) -> None:
        self.frames = frames
        self.withdrawn: list[str] = []
        self.left: list[Left] = []
        self.transactions: frozenset[str] = frozenset()
        self._routines = routines
        self._compensation = Compensation(frames)
        self._asked: set[str] = set()
        self._taken_back: list[str] = []

    @classmethod
    def start(cls, program: Program, arguments: Mapping[str, Any], routines: Routines = _no_routines) -> Machine:
        """Return a machine at the beginning of ``program``; ``arguments`` are its parameters by name.

        ``routines`` gives the programs of the routines that it is going to call.
        """
        return cls({ROOT: Frame.begin(program, arguments, None)}, routines)

    @classmethod
    def restore(
        cls, programs: Mapping[str, Program], images: Mapping[str, FrameImage], routines: Routines = _no_routines
    ) -> Machine:
        """Return the machine that ``images`` were taken of; ``programs`` are linked programs by hash.

        The next ``advance`` gives the asks that were pending again.
        """
        frames: dict[str, Frame] = {}
        for path in sorted(images, key=place):
            image = images[path]
            program = programs[image.program] if image.program in programs else BY_HASH[image.program]
            frame = Frame(program, step=image.step, visits=image.visits, variables=dict(image.variables))
            if path != ROOT:
                frame.outer = frames[_caller(path)].handling
            frames[path] = frame
        return cls(frames, routines)

    @property
    def outcome(self) -> Returned | Raised | None:
        """How the instance ended, or ``None`` while it lives."""
        return self.frames[ROOT].outcome

    def advance(self) -> list[Ask]:
        """Run every frame that can run until it waits or ends, and return the new asks, in the order of their paths.

        Must not be called while an exception is being handled: user code would see it as its own.
        """
        self.withdrawn, self._taken_back = self._taken_back, []
        self.left = []
        gathering, running = [], []
        for path, frame in self.frames.items():
            if frame.can_run:
                running.append(path)
            elif gathers(frame):
                gathering.append(path)
        # What is to be looked at, last first. Who has an answer takes it before anybody is cancelled.
        todo = [*gathering, *reversed(running)]
        while todo:
            path = todo.pop()
            if path not in self.frames:
                continue
            frame = self.frames[path]
            if frame.can_run:
                frame.run()
                self._follow(path, frame, todo)
            elif gathers(frame):
                self._review(path, frame, todo)
        return self._new_asks()

    def answer(self, path: str, result: Returned | Raised) -> None:
        """Hand a frame or branch the answer to its ask; it goes on at the next ``advance``."""
        frame = self.frames.get(path)
        if frame is None:
            self._end_branch(path, result)
        elif isinstance(frame.awaiting, Running | Gathering | Compensating):
            raise RuntimeError("this frame waits for nothing but others")
        else:
            cancelled = frame.variables.pop("$cancel", None)
            frame.answer(result if cancelled is None else Raised(cancelled))

    def enter(self, path: str, program: Program, arguments: Mapping[str, Any], child: str) -> str:
        """Answer the ask for a subflow with a frame of the subflow's program; return that frame's path.

        What the frame returns or raises goes to who asked; ``left`` tells of it, under ``child``. Raises
        ``RecursionError`` if there are too many frames; then the ask is to be answered otherwise.
        """
        if path.count(".") >= MAX_DEPTH:
            raise RecursionError(f"workflows run each other more than {MAX_DEPTH} deep")
        caller = self.frames.get(path)
        if caller is None:
            caller = self.frames[_caller(path)]
            gathering, index = open_branch(path, caller)
            gathering.branches[index] = Running()
            self._asked.discard(path)
        elif isinstance(caller.awaiting, SubflowCall):
            caller.variables["$await"] = Running()
            path = f"{path}.{caller.visits}"
        else:
            raise RuntimeError(f"the frame {path} waits for no subflow")
        self.frames[path] = Frame.begin(program, {**arguments, "$child": child}, caller.handling)
        return path

    def settle(self, kind: Literal["undo", "confirm"]) -> bool:
        """Begin to undo or confirm what is left when the instance has ended; False if there is nothing.

        If there is, ``outcome`` is None until it is done. Scopes that failed are cancelled in either case.
        """
        return self._compensation.settle(kind)

    def cancel(self, error: Cancelled | None = None) -> bool:
        """Raise ``Cancelled`` where the instance waits, at the next ``advance``; once, and False from then on.

        It is False too when the instance has ended, or is only being settled. What undoes, confirms or
        cancels is not interrupted: the exception is raised behind it.
        """
        root = self.frames[ROOT]
        if root.outcome is not None or "$ended" in root.variables or "$cancelled" in root.variables:
            return False
        root.variables["$cancelled"] = True
        error = error or Cancelled()
        if root.visits == 0:
            root.outcome = Raised(error)
            return True
        self._taken_back += cancel(self.frames, ROOT, error)[1]
        return True

    def images(self) -> dict[str, FrameImage]:
        """Return every frame as data, by path.

        The variables hold the live objects: encode them before the machine goes on.
        """
        return {path: frame.image() for path, frame in self.frames.items()}

    def _new_asks(self) -> list[Ask]:
        asks = []
        for path, frame in self.frames.items():
            if frame.asked or (awaited := frame.awaiting) is None or isinstance(awaited, Running | Compensating):
                continue
            if not isinstance(awaited, Gathering):
                frame.asked = True
                asks.append(Ask(path=path, step=frame.step, line=frame.line, visit=frame.visits, awaited=awaited))
                continue
            for branch, waits in branches_of(path, frame, awaited):
                if isinstance(waits, Awaitable) and not isinstance(waits, Running) and branch not in self._asked:
                    self._asked.add(branch)
                    asks.append(Ask(path=branch, step=frame.step, line=frame.line, visit=1, awaited=waits))
        if len(asks) > 1:
            asks.sort(key=lambda ask: place(ask.path))
        return asks

    # Calls.

    def _follow(self, path: str, frame: Frame, todo: list[str]) -> None:
        """See to what a frame has come to: its end, or something that it awaits."""
        if frame.outcome is not None:
            if path != ROOT:
                self._end(path, frame, frame.outcome, todo)
        elif (awaited := frame.awaiting) is not None:
            if actions := self._compensation.due(path):
                todo.append(self._compensation.interpose(path, frame, actions, awaited))
            else:
                self._serve(path, frame, awaited, todo)

    def _serve(self, path: str, frame: Frame, awaited: Awaitable[Any] | Ended, todo: list[str]) -> None:
        """Do what the machine does itself about something awaited: calls, gathers, compensable scopes."""
        match awaited:
            case RoutineCall():
                if self._call(f"{path}.{frame.visits}", frame, awaited, todo):
                    frame.variables["$await"] = Running()
            case Gather():
                gathering = Gathering(list(awaited.branches))
                frame.variables["$await"] = gathering
                # It is looked at again when all its branches have begun.
                todo.append(path)
                for index, (branch, call) in reversed(list(enumerate(branches_of(path, frame, gathering)))):
                    if isinstance(call, RoutineCall) and self._call(branch, frame, call, todo):
                        gathering.branches[index] = Running()
            case Enter(scope=CompensableScope()):
                frame.answer(self._compensation.enter(path, frame.line, self.transactions))
                todo.append(path)
            case Leave(scope=CompensableScope()):
                if actions := self._compensation.leave(path, awaited.error):
                    todo.append(self._compensation.interpose(path, frame, actions, Ended()))
                else:
                    frame.answer(Returned())
                    todo.append(path)
            case Ended():
                frame.answer(Returned())
                todo.append(path)

    def _call(self, path: str, caller: Frame, call: RoutineCall[Any], todo: list[str]) -> bool:
        """Begin a frame; if that cannot be, answer with the reason instead and return False."""
        try:
            program = self._program(path, call.routine, caller.line)
        except (AppError, ScopeError, RecursionError) as error:
            # Where it was raised is no business of the workflow's.
            error.__traceback__ = None
            if gathers(caller):
                self._end_branch(path, Raised(error))
            else:
                caller.answer(Raised(error))
                todo.append(_caller(path))
            return False
        self.frames[path] = Frame.begin(program, call.arguments, caller.handling)
        todo.append(path)
        return True

    def _program(self, path: str, routine: str, line: int) -> Program:
        if path.count(".") >= MAX_DEPTH:
            raise RecursionError(f"routines call each other more than {MAX_DEPTH} deep")
        if routine not in PROGRAMS:
            return self._routines(routine)
        if any(is_below(path, transaction) for transaction in self.transactions):
            # A rollback would take back what was done, and the scope would still count as undone or confirmed.
            what = f"{routine.removeprefix(RESERVED)}() inside a transaction"
            raise ScopeError(what=what, mend="Put it before or after the transaction.", line=line)
        return PROGRAMS[routine]

    def _end(self, path: str, frame: Frame, outcome: Returned | Raised, todo: list[str]) -> None:
        """Hand the outcome of a call to who made it."""
        if isinstance(outcome, Raised) and isinstance(outcome.error, CompensationFailed) and compensates(frame):
            self._fail(outcome, todo)
            return
        del self.frames[path]
        if "$child" in frame.variables:
            self.left.append(Left(frame.variables["$child"], path, outcome))
        at = _caller(path)
        caller = self.frames[at]
        awaited = caller.awaiting
        if isinstance(awaited, Gathering):
            self._end_branch(path, outcome)
            if at not in todo:
                todo.insert(0, at)
        elif "$ended" in caller.variables:
            self._compensation.settled()
        elif "$cancel" in caller.variables and not (isinstance(awaited, Compensating) and ends_scope(awaited.then)):
            error = caller.variables.pop("$cancel")
            if isinstance(awaited, Compensating) and _is_leaving(awaited.then):
                self._compensation.leave(at, error)
            caller.interrupt(error)
            todo.append(at)
        elif isinstance(awaited, Compensating):
            caller.variables["$await"] = awaited.then
            self._serve(at, caller, awaited.then, todo)
        else:
            caller.answer(outcome, was_left=isinstance(outcome, Raised))
            todo.append(at)

    def _fail(self, outcome: Raised, todo: list[str]) -> None:
        """End the instance at once, since what was to undo, confirm or cancel has failed."""
        for path, frame in self.frames.items():
            if frame.asked and not isinstance(frame.awaiting, Running | Gathering | Compensating | None):
                self.withdrawn.append(path)
            if "$child" in frame.variables:
                self.left.append(Left(frame.variables["$child"], path, outcome))
        self.withdrawn += sorted(self._asked)
        self._asked.clear()
        todo.clear()
        root = self.frames[ROOT]
        self.frames.clear()
        self.frames[ROOT] = root
        root.outcome = outcome

    # Gathers.

    def _end_branch(self, path: str, outcome: Returned | Raised) -> None:
        gathering, index = open_branch(path, self.frames.get(_caller(path)))
        self._asked.discard(path)
        end_branch(gathering, index, outcome)

    def _review(self, path: str, frame: Frame, todo: list[str]) -> None:
        """Go on behind a ``gather`` whose branches have all ended; cancel those of one that is to raise."""
        gathering = frame.awaiting
        assert isinstance(gathering, Gathering)  # noqa: S101 - The caller has looked.
        if gathering.error is not None and not gathering.is_cancelling:
            gathering.is_cancelling = True
            todo.append(path)
            for index, (branch, waits) in reversed(list(enumerate(branches_of(path, frame, gathering)))):
                if isinstance(waits, Running):
                    looked_at, withdrawn = cancel(self.frames, branch, Cancelled())
                    todo += looked_at
                    self.withdrawn += withdrawn
                elif not isinstance(waits, Ended):
                    self._withdraw(branch)
                    gathering.branches[index] = Ended()
        elif all(isinstance(branch, Ended) for branch in gathering.branches):
            if gathering.error is not None:
                self._compensation.hand_over(f"{path}.{frame.visits}-", gathering.error)
                frame.answer(Raised(gathering.error))
            else:
                frame.answer(Returned([b.value for b in gathering.branches if isinstance(b, Ended)]))
            todo.append(path)

    def _withdraw(self, branch: str) -> None:
        if branch in self._asked:
            self._asked.discard(branch)
            self.withdrawn.append(branch)


def place(path: str) -> list[int]:
    """Return what sorts frames and branches: callers before what they call, calls and branches in order."""
    return [int(number) for number in re.findall(r"\d+", path)]


def _is_leaving(awaited: Awaitable[Any] | Ended) -> bool:
    return isinstance(awaited, Leave) and isinstance(awaited.scope, CompensableScope)


def _caller(path: str) -> str:
    return path.rpartition(".")[0]
