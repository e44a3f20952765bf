"""The branches of a ``gather`` that is under way."""

from __future__ import annotations

import traceback
from typing import Any

from holdfast.processor.core.frame import Frame
from holdfast.processor.core.outcomes import Raised, Returned
from holdfast.processor.language.awaitables import Awaitable, Ended, Gathering
from holdfast.schemas.errors import Cancelled


def gathers(frame: Frame) -> bool:
    """Whether a frame waits for the branches of a ``gather``."""
    return isinstance(frame.awaiting, Gathering)


def branches_of(path: str, frame: Frame, gathering: Gathering) -> list[tuple[str, Awaitable[Any] | Ended]]:
    """Return each branch of the ``gather`` of the frame at ``path``, with the branch's own path."""
    return [(f"{path}.{frame.visits}-{n}", branch) for n, branch in enumerate(gathering.branches, 1)]


def open_branch(path: str, frame: Frame | None) -> tuple[Gathering, int]:
    """Return the ``gather`` of a frame and the index in it of the branch at ``path``, which has not ended."""
    gathering = None if frame is None else frame.awaiting
    _, separator, number = path.rpartition("-")
    index = int(number) - 1 if separator else 0
    if not separator or not isinstance(gathering, Gathering) or isinstance(gathering.branches[index], Ended):
        raise RuntimeError(f"there is no branch {path} that waits for anything")
    return gathering, index


def end_branch(gathering: Gathering, index: int, outcome: Returned | Raised) -> None:
    """Keep what came of one branch; the first exception is the one that the ``gather`` raises."""
    if isinstance(outcome, Returned):
        gathering.branches[index] = Ended(outcome.value)
        return
    gathering.branches[index] = Ended()
    if gathering.error is None:
        gathering.error = outcome.error
    elif not isinstance(outcome.error, Cancelled):
        said = "".join(traceback.format_exception_only(outcome.error)).strip()
        gathering.error.add_note(f"Another branch of the gather then raised {said}")
