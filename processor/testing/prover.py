"""The crash prover: a scenario comes out the same wherever a host dies in it.

The scenario is run once without a crash, which tells every call after which something is durable. Then it is
run again for each of these calls, with a host that dies just before it, and with one that dies just after it, when it
has taken effect and nobody has heard of that; and both once with a lease that lapses at once, once with a lease that
outlives the redelivery of what was not acked. Each time another host takes over, and the scenario goes on as if
nothing had happened. States, committed SQL, published messages, verdicts and acks must be the same as without a crash.

An activity that must not run twice is left in doubt by some of these deaths. Then the prover does what an operator
would do who knows all: it resolves the call as done, with its result, if the activity had ended, else as to be run
again. Such a run has a suspension more in its history, so versions, and the message ids made of them, do not count.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from holdfast.processor.language.app import App
from holdfast.processor.testing.door import Death, Watch
from holdfast.processor.testing.outcome import Outcome, differences, names_of, outcome_of, repeated, with_names
from holdfast.processor.testing.report import CrashReport, CrashRun
from holdfast.processor.testing.simulation import Simulation
from holdfast.schemas.errors import AppError, NotDeterministic

Scenario = Callable[[Simulation], Awaitable[object]]
"""Delivers messages and lets time pass; it may also look and assert. It must do the same each time."""


async def crash_prover(app: App, scenario: Scenario, **options: Any) -> CrashReport:
    """Prove that a scenario survives the death of its host at any call that commits, and return the account.

    ``options`` are those of ``Simulation``. Raises ``AssertionError``, with an account of the runs that
    failed, if one came out otherwise than the run without a crash; ``NotDeterministic`` if two runs without a crash
    differ already; ``AppError`` if the scenario commits nothing; and whatever the scenario raises without a crash.
    """
    prover = _Prover(app, scenario, options)
    undisturbed = await prover.undisturbed()
    count = len(undisturbed.calls)
    deaths = [Death(n, after=a, late=b) for n in range(1, count + 1) for a in (False, True) for b in (False, True)]
    report = CrashReport(
        scenario=getattr(scenario, "__name__", "the scenario"),
        calls=undisturbed.in_words,
        runs=[await prover.disturbed(undisturbed, death) for death in deaths],
    )
    if report.failed:
        raise AssertionError(report.failure())
    return report


@dataclass(frozen=True, slots=True)
class _Undisturbed:
    """The run without a crash: its calls that commit, the names of instances, what came of it, exactly and loosely."""

    calls: list[str]
    names: Mapping[str, str]
    outcome: Outcome
    loose: Outcome

    @property
    def in_words(self) -> list[str]:
        return [with_names(call, self.names) for call in self.calls]


@dataclass(frozen=True, slots=True)
class _Prover:
    app: App
    scenario: Scenario
    options: dict[str, Any]

    async def undisturbed(self) -> _Undisturbed:
        """Run the scenario twice without a crash: it must do the same both times."""
        one, other = [await self._undisturbed() for _ in range(2)]
        _compare(one.calls, other.calls, "without a crash")
        if found := differences(one.outcome, other.outcome):
            raise NotDeterministic("two runs without a crash differ: " + "; ".join(found))
        if not one.calls:
            raise AppError("the scenario commits nothing, so there is nothing to prove: deliver a message")
        return one

    async def _undisturbed(self) -> _Undisturbed:
        watch = Watch()
        async with Simulation(self.app, watch=watch, **self.options) as world:
            await self.scenario(world)
            await world.rest()
            return _Undisturbed(
                list(watch.calls), names_of(world.tables), outcome_of(world), outcome_of(world, loosely=True)
            )

    async def disturbed(self, undisturbed: _Undisturbed, death: Death) -> CrashRun:
        """Run the scenario with a host that dies."""
        watch = Watch(death=death)
        failures: list[str] = []
        async with Simulation(self.app, watch=watch, **self.options) as world:
            try:
                await self.scenario(world)
                await world.rest()
            except Exception as error:  # noqa: BLE001  Whatever the scenario raises, it did not without the crash.
                failures.append(f"the scenario raised {type(error).__name__}: {error}")
            _compare(undisturbed.calls[: death.number], watch.calls[: death.number], "up to the crash")
            names = names_of(world.tables)
            if world.resolved:
                found = differences(undisturbed.loose, outcome_of(world, loosely=True))
            else:
                found = differences(undisturbed.outcome, outcome_of(world))
            return CrashRun(
                number=death.number,
                call=undisturbed.in_words[death.number - 1],
                after=death.after,
                late=death.late,
                survived=world.survived,
                redelivered=[each.envelope.message_id for each in world.deliveries if each.times > 1],
                repeated=repeated(world.activity_runs, names),
                resolved=[with_names(call, names) for call in world.resolved],
                differences=[*failures, *found],
            )


def _compare(expected: list[str], found: list[str], when: str) -> None:
    for number, (one, other) in enumerate(zip(expected, found, strict=False), 1):
        if one != other:
            raise NotDeterministic(f"call {number} that commits was, {when}, once the {one}, once the {other}")
    if len(expected) != len(found):
        raise NotDeterministic(f"{when} there were once {len(expected)}, once {len(found)} calls that commit")
