"""What the crash prover found: each run, where a host died in it, what was recovered, and what differed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class CrashRun:
    """One run of the scenario in which a host died.

    It died just before or just ``after`` the ``number``-th call that commits, ``call`` in words. With
    ``late`` its lease still lived when its successor took the messages that came again. ``survived`` says what the
    store had of each instance, ``redelivered`` are the ids of the messages that came again, ``repeated`` the
    idempotency keys of the activity calls that were made again, ``resolved`` those that were in doubt, and how.
    ``differences`` is what came out otherwise than without a crash.
    """

    number: int
    call: str
    after: bool
    late: bool
    survived: Sequence[str]
    redelivered: Sequence[str]
    repeated: Sequence[str]
    resolved: Sequence[str]
    differences: Sequence[str]

    def __str__(self) -> str:
        lines = [f"{self.number}. died {'after' if self.after else 'before'} the {self.call}"]
        lines.append(f"   lease: {'lapsed after the redelivery' if self.late else 'lapsed at once'}")
        lines.append(f"   in the store: {'; '.join(self.survived) or 'no instance'}")
        lines.append(f"   delivered again: {', '.join(self.redelivered) or 'nothing'}")
        lines.append(f"   run again: {', '.join(self.repeated) or 'nothing'}")
        lines += (f"   in doubt: {call}" for call in self.resolved)
        lines += (f"   DIFFERS: {difference}" for difference in self.differences)
        return "\n".join(lines)


@dataclass(frozen=True, slots=True, kw_only=True)
class CrashReport:
    """All runs of a scenario; ``calls`` are the calls that commit of the run without a crash."""

    scenario: str
    calls: Sequence[str]
    runs: Sequence[CrashRun]

    @property
    def failed(self) -> Sequence[CrashRun]:
        """The runs that came out otherwise than the one without a crash."""
        return [run for run in self.runs if run.differences]

    def __str__(self) -> str:
        return "\n".join([self._summary(), *map(str, self.runs)])

    def failure(self) -> str:
        """Return an account of the runs that failed."""
        return "\n".join([self._summary(), *map(str, self.failed)])

    def _summary(self) -> str:
        return (
            f"{self.scenario}: {len(self.calls)} calls that commit, {len(self.runs)} crashes, "
            f"{len(self.failed)} with another outcome"
        )
