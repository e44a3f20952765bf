"""The live form of an instance: it asks for what it cannot do itself, and goes on with the answers.

A machine knows no clock and does no I/O. ``advance`` runs the instance's code until it waits and
returns what it asks for; ``answer`` hands an answer back, upon which ``advance`` is called again. While
all frames wait, ``images`` gives them as data, and ``restore`` makes an equal machine of that data.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from holdfast.processor.core.frame import Frame, FrameImage
from holdfast.processor.core.outcomes import Raised, Returned
from holdfast.processor.language.awaitables import Awaitable
from holdfast.processor.language.program import Program

ROOT = "0"
"""The path of an instance's first frame."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """Something that a frame waits for.

    ``path`` names the frame; ``step`` and ``line`` say where it stands, and ``visit`` counts the awaits
    of that frame, from 1, so that path, step and visit together name this ask once and for all.
    """

    path: str
    step: int
    line: int
    visit: int
    awaited: Awaitable[Any]


class Machine:
    """The frames of one instance, by path. Made by ``start`` or ``restore``."""

    __slots__ = ("frames",)

    def __init__(self, frames: dict[str, Frame]) -> None:
        self.frames = frames

    @classmethod
    def start(cls, program: Program, arguments: Mapping[str, Any]) -> Machine:
        """Return a machine at the beginning of ``program``; ``arguments`` are its parameters by name."""
        return cls({ROOT: Frame(program, step=0, visits=0, variables=dict(arguments))})

    @classmethod
    def restore(cls, programs: Mapping[str, Program], images: Mapping[str, FrameImage]) -> Machine:
        """Return the machine that ``images`` were taken of; ``programs`` are linked programs by hash.

        The next ``advance`` gives the asks that were pending again.
        """
        return cls(
            {
                path: Frame(
                    programs[image.program], step=image.step, visits=image.visits, variables=dict(image.variables)
                )
                for path, image in images.items()
            }
        )

    @property
    def outcome(self) -> Returned | Raised | None:
        """How the instance ended, or ``None`` while it lives."""
        return self.frames[ROOT].outcome

    def advance(self) -> list[Ask]:
        """Run every frame that can run until it waits or ends, and return the new asks.

        Must not be called while an exception is being handled: user code would see it as its own.
        """
        asks = []
        for path, frame in self.frames.items():
            if frame.outcome is None and "$await" not in frame.variables:
                frame.run()
            if not frame.asked and (awaited := frame.awaiting) is not None:
                frame.asked = True
                asks.append(Ask(path=path, step=frame.step, line=frame.line, visit=frame.visits, awaited=awaited))
        return asks

    def answer(self, path: str, result: Returned | Raised) -> None:
        """Hand a frame the answer to its ask; the frame goes on at the next ``advance``."""
        self.frames[path].answer(result)

    def images(self) -> dict[str, FrameImage]:
        """Return every frame as data, by path.

        The variables hold the live objects: encode them before the machine goes on.
        """
        return {path: frame.image() for path, frame in self.frames.items()}
