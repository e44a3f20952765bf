"""The live form of an instance: it asks for what it cannot do itself, and goes on with the answers.

A machine knows no clock and does no I/O. ``advance`` runs the instance's code until it waits and
returns what it asks for; ``answer`` hands an answer back, upon which ``advance`` is called again. While
all frames wait, ``images`` gives them as data, and ``restore`` makes an equal machine of that data.

Every frame has a *path*, which is never used again within its instance:

    0         the workflow
    0.3       the routine that frame 0 called with its third await
    0.4-2     the second branch of the gather that frame 0 reached with its fourth await; a frame of its
              own if the branch is a routine, else the place of what it waits for
    0.4-2.1   the routine that the frame 0.4-2 called with its first await
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from holdfast.processor.core.frame import Frame, FrameImage
from holdfast.processor.core.outcomes import Raised, Returned
from holdfast.processor.language.awaitables import Awaitable, Ended, Gather, Gathering, RoutineCall, Running
from holdfast.processor.language.program import Program
from holdfast.schemas.errors import AppError, Cancelled

ROOT = "0"
"""The path of an instance's first frame."""

MAX_DEPTH = 500
"""How many routines may call each other, the workflow included, before Python's ``RecursionError``."""

Routines = Callable[[str], Program]
"""Gives the program of a routine by its name; ``AppError`` if there is no such routine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """Something that a frame, or a branch of a ``gather``, waits for.

    ``path`` names the frame; ``step`` and ``line`` say where it stands, and ``visit`` counts the awaits
    of that frame, from 1, so that path, step and visit together name this ask once and for all. A branch
    asks as a frame would that stands where the ``gather`` does and awaits that one thing.
    """

    path: str
    step: int
    line: int
    visit: int
    awaited: Awaitable[Any]


def _no_routines(name: str) -> Program:
    raise AppError(f"there is no routine {name!r} here")


class Machine:
    """The frames of one instance, by path. Made by ``start`` or ``restore``.

    ``withdrawn`` are the paths whose asks the last ``advance`` took back, since they were cancelled:
    these must not be answered any more.
    """

    __slots__ = ("_asked", "_routines", "frames", "transactions", "withdrawn")

    def __init__(self, frames: dict[str, Frame], routines: Routines) -> None:
        self.frames = frames
        self.withdrawn: list[str] = []
        self.transactions: frozenset[str] = frozenset()
        self._routines = routines
        self._asked: set[str] = set()

    @classmethod
    def start(cls, program: Program, arguments: Mapping[str, Any], routines: Routines = _no_routines) -> Machine:
        """Return a machine at the beginning of ``program``; ``arguments`` are its parameters by name.

        ``routines`` gives the programs of the routines that it is going to call.
        """
        return cls({ROOT: Frame(program, step=0, visits=0, variables=dict(arguments))}, routines)

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
            frame = Frame(
                programs[image.program], step=image.step, visits=image.visits, variables=dict(image.variables)
            )
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
        self.withdrawn.clear()
        # What is to be looked at, last first. Who has an answer takes it before anybody is cancelled.
        todo = [path for path, frame in self.frames.items() if _gathers(frame)]
        todo += reversed([path for path, frame in self.frames.items() if frame.can_run])
        while todo:
            path = todo.pop()
            frame = self.frames.get(path)
            if frame is None:
                continue
            if frame.can_run:
                frame.run()
                self._follow(path, frame, todo)
            elif _gathers(frame):
                self._review(path, frame, todo)
        return self._new_asks()

    def answer(self, path: str, result: Returned | Raised) -> None:
        """Hand a frame or branch the answer to its ask; it goes on at the next ``advance``."""
        frame = self.frames.get(path)
        if frame is None:
            self._end_branch(path, result)
        elif isinstance(frame.awaiting, Running | Gathering):
            raise RuntimeError("this frame waits for nothing but others")
        else:
            frame.answer(result)

    def settle(self, kind: str) -> bool:  # noqa: ARG002 - There is nothing to settle yet.
        return False

    def cancel(self) -> None:
        self._cancel(ROOT, [])

    def images(self) -> dict[str, FrameImage]:
        """Return every frame as data, by path.

        The variables hold the live objects: encode them before the machine goes on.
        """
        return {path: frame.image() for path, frame in self.frames.items()}

    def _new_asks(self) -> list[Ask]:
        asks = []
        for path, frame in self.frames.items():
            if frame.asked or (awaited := frame.awaiting) is None or isinstance(awaited, Running):
                continue
            if not isinstance(awaited, Gathering):
                frame.asked = True
                asks.append(Ask(path=path, step=frame.step, line=frame.line, visit=frame.visits, awaited=awaited))
                continue
            for branch, waits in _branches(path, frame, awaited):
                if isinstance(waits, Awaitable) and not isinstance(waits, Running) and branch not in self._asked:
                    self._asked.add(branch)
                    asks.append(Ask(path=branch, step=frame.step, line=frame.line, visit=1, awaited=waits))
        if len(asks) > 1:
            asks.sort(key=lambda ask: place(ask.path))
        return asks

    # Calls.

    def _follow(self, path: str, frame: Frame, todo: list[str]) -> None:
        """See to what a frame has come to: its end, a call, or a gather."""
        awaited = frame.awaiting
        if frame.outcome is not None:
            if path != ROOT:
                self._end(path, frame.outcome, todo)
        elif isinstance(awaited, RoutineCall):
            if self._call(f"{path}.{frame.visits}", frame, awaited, todo):
                frame.variables["$await"] = Running()
        elif isinstance(awaited, Gather):
            gathering = Gathering(list(awaited.branches))
            frame.variables["$await"] = gathering
            # It is looked at again when all its branches have begun.
            todo.append(path)
            for index, (branch, call) in reversed(list(enumerate(_branches(path, frame, gathering)))):
                if isinstance(call, RoutineCall) and self._call(branch, frame, call, todo):
                    gathering.branches[index] = Running()

    def _call(self, path: str, caller: Frame, call: RoutineCall[Any], todo: list[str]) -> bool:
        """Begin a frame; if that cannot be, answer with the reason instead and return False."""
        try:
            program = self._program(path, call.routine)
        except (AppError, RecursionError) as error:
            # Where it was raised is no business of the workflow's.
            error.__traceback__ = None
            if isinstance(caller.awaiting, Gathering):
                self._end_branch(path, Raised(error))
            else:
                caller.answer(Raised(error))
                todo.append(_caller(path))
            return False
        frame = Frame(program, step=0, visits=0, variables=dict(call.arguments))
        frame.outer = caller.handling
        self.frames[path] = frame
        todo.append(path)
        return True

    def _program(self, path: str, routine: str) -> Program:
        if path.count(".") >= MAX_DEPTH:
            raise RecursionError(f"routines call each other more than {MAX_DEPTH} deep")
        return self._routines(routine)

    def _end(self, path: str, outcome: Returned | Raised, todo: list[str]) -> None:
        """Hand the outcome of a routine to who called it."""
        del self.frames[path]
        caller = _caller(path)
        if not _gathers(self.frames[caller]):
            self.frames[caller].answer(outcome)
            todo.append(caller)
            return
        self._end_branch(path, outcome)
        if caller not in todo:
            todo.insert(0, caller)

    # Gathers.

    def _end_branch(self, path: str, outcome: Returned | Raised) -> None:
        """Keep what came of one branch; the first exception is the one that the ``gather`` raises."""
        frame = self.frames.get(_caller(path))
        gathering = None if frame is None else frame.awaiting
        index = int(path.rpartition("-")[2]) - 1
        if not isinstance(gathering, Gathering) or isinstance(gathering.branches[index], Ended):
            raise RuntimeError(f"there is no branch {path} that waits for anything")  # noqa: TRY004 - Not its type is wrong.
        self._asked.discard(path)
        if isinstance(outcome, Returned):
            gathering.branches[index] = Ended(outcome.value)
            return
        gathering.branches[index] = Ended()
        if gathering.error is None:
            gathering.error = outcome.error
        elif not isinstance(outcome.error, Cancelled):
            said = "".join(traceback.format_exception_only(outcome.error)).strip()
            gathering.error.add_note(f"Another branch of the gather then raised {said}")

    def _review(self, path: str, frame: Frame, todo: list[str]) -> None:
        """Go on behind a ``gather`` whose branches have all ended; cancel those of one that is to raise."""
        gathering = frame.awaiting
        assert isinstance(gathering, Gathering)  # noqa: S101 - The caller has looked.
        if gathering.error is not None and not gathering.is_cancelling:
            gathering.is_cancelling = True
            todo.append(path)
            for index, (branch, waits) in reversed(list(enumerate(_branches(path, frame, gathering)))):
                if isinstance(waits, Running):
                    self._cancel(branch, todo)
                elif not isinstance(waits, Ended):
                    self._withdraw(branch)
                    gathering.branches[index] = Ended()
        elif all(isinstance(branch, Ended) for branch in gathering.branches):
            if gathering.error is not None:
                frame.answer(Raised(gathering.error))
            else:
                frame.answer(Returned([b.value for b in gathering.branches if isinstance(b, Ended)]))
            todo.append(path)

    def _cancel(self, path: str, todo: list[str]) -> None:
        """Raise ``Cancelled`` in the frame at ``path``, or rather where the innermost of its calls waits."""
        frame = self.frames[path]
        awaited = frame.awaiting
        if isinstance(awaited, Running):
            self._cancel(f"{path}.{frame.visits}", todo)
            return
        if isinstance(awaited, Gathering):
            cancelled = Cancelled()
            cancelled.__context__ = awaited.error
            awaited.error = cancelled
        else:
            if awaited is not None and frame.asked:
                self.withdrawn.append(path)
            frame.interrupt(Cancelled())
        todo.append(path)

    def _withdraw(self, branch: str) -> None:
        if branch in self._asked:
            self._asked.discard(branch)
            self.withdrawn.append(branch)


def place(path: str) -> list[int]:
    """Return what sorts frames and branches: callers before what they call, calls and branches in order."""
    return [int(number) for number in re.findall(r"\d+", path)]


def _caller(path: str) -> str:
    return path.rpartition(".")[0]


def _gathers(frame: Frame) -> bool:
    return isinstance(frame.awaiting, Gathering)


def _branches(path: str, frame: Frame, gathering: Gathering) -> list[tuple[str, Awaitable[Any] | Ended]]:
    """Return each branch of a frame's ``gather`` with its path."""
    return [(f"{path}.{frame.visits}-{n}", branch) for n, branch in enumerate(gathering.branches, 1)]
