"""How an exception is raised where a call waits, or the innermost of those that it made."""

from __future__ import annotations

from collections.abc import Mapping

from holdfast.processor.core.compensation import compensates
from holdfast.processor.core.frame import Frame
from holdfast.processor.language.awaitables import CompensableScope, Compensating, Gathering, Leave, Running
from holdfast.schemas.errors import Cancelled


def cancel(frames: Mapping[str, Frame], path: str, error: Cancelled) -> tuple[list[str], list[str]]:
    """Raise ``error`` at what the frame at ``path`` waits for; return who is to go on, and whose ask is taken back.

    What undoes, confirms or cancels is not interrupted, nor is the end of a scope, which somebody else keeps
    open until it is told; the exception is raised behind it.
    """
    frame = frames[path]
    awaited = frame.awaiting
    if isinstance(awaited, Running) and not compensates(frames[called := f"{path}.{frame.visits}"]):
        return cancel(frames, called, error)
    if isinstance(awaited, Running | Compensating) or ends_scope(awaited):
        frame.variables["$cancel"] = error
        return [], []
    if isinstance(awaited, Gathering):
        error.__context__ = awaited.error
        awaited.error = error
        return [path], []
    withdrawn = [path] if awaited is not None and frame.asked else []
    frame.interrupt(error)
    return [path], withdrawn


def ends_scope(awaited: object) -> bool:
    """Whether what is awaited is the end of a scope that somebody else keeps."""
    return isinstance(awaited, Leave) and not isinstance(awaited.scope, CompensableScope)
