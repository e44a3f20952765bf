"""The idle policy: when an instance that waits is persisted, and when it is let go of.

A workflow may say so, and so may a host, by its settings; the workflow's word counts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import timedelta
from typing import get_args

from holdfast.schemas.errors import AppError
from holdfast.schemas.settings import OnIdle, Settings


@dataclass(frozen=True, slots=True)
class Idling:
    """What a workflow says of its idle instances; None leaves it to the host."""

    time_to_persist: timedelta | None = None
    time_to_unload: timedelta | None = None
    on_idle: OnIdle | None = None

    def __post_init__(self) -> None:
        """Raise ``AppError`` for what is out of bounds, or makes no sense together."""
        persist, unload = self.time_to_persist, self.time_to_unload
        if self.on_idle not in (None, *get_args(OnIdle)):
            raise AppError(f"on_idle={self.on_idle!r}: use one of {', '.join(get_args(OnIdle))}")
        for name, given in (("time_to_persist", persist), ("time_to_unload", unload)):
            if given is not None and given < timedelta():
                raise AppError(f"{name}={given!r}: no time is shorter than none")
        if self.on_idle == "none" and persist is not None:
            raise AppError("time_to_persist with on_idle='none': idle is no persistence point then, so leave it out")
        if self.on_idle == "unload" and (persist is not None or unload is not None):
            raise AppError("on_idle='unload' persists and unloads at once, so leave the times out")
        if persist is not None and unload is not None and persist > unload:
            raise AppError(
                f"time_to_persist={persist!r} is longer than time_to_unload={unload!r}: what is unloaded is persisted"
            )

    def on(self, host: Settings) -> IdlePolicy:
        """Return the policy on a host. A workflow that gives a time wants the instance to idle for that long."""
        on_idle = self.on_idle or host.on_idle
        if self.on_idle is None and self.time_to_persist is not None:
            on_idle = "persist"
        if self.on_idle is None and self.time_to_unload is not None and on_idle == "unload":
            on_idle = "persist"
        if on_idle == "unload":
            return IdlePolicy(0.0, 0.0)
        unload = _seconds(self.time_to_unload, host.time_to_unload)
        if on_idle == "none":
            return IdlePolicy(math.inf, unload)
        return IdlePolicy(_seconds(self.time_to_persist, host.time_to_persist), unload)


@dataclass(frozen=True, slots=True)
class IdlePolicy:
    """Seconds from the moment at which an instance is idle until it is persisted, and until it is let go of.

    What is let go of is persisted first.
    """

    time_to_persist: float
    time_to_unload: float

    @property
    def defers(self) -> bool:
        """Whether an instance may be idle for a while without a persistence point."""
        return self.time_to_persist > 0 and self.time_to_unload > 0


def _seconds(given: timedelta | None, default: float) -> float:
    return default if given is None else given.total_seconds()
