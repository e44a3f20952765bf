"""Who knows what became of an activity call that is in doubt: the simulation, in which it ran or did not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pydantic_core import to_jsonable_python

from holdfast.processor.testing.instance import SimulatedInstance
from holdfast.processor.testing.stand_ins import ActivityRun
from holdfast.schemas.control import Command


def resolutions(
    instances: Sequence[SimulatedInstance], runs: Sequence[ActivityRun]
) -> Iterator[tuple[SimulatedInstance, Command]]:
    """Say of each call in doubt whether it was done, and what it returned; what was not is to run again."""
    done = {run.idempotency_key: run for run in runs if run.ended and not isinstance(run.outcome, BaseException)}
    for instance in instances:
        if instance.suspension_reason != "in_doubt":
            continue
        for key, call in instance.state.calls.items():
            if call.status == "intended" and key in done:
                result = to_jsonable_python(done[key].outcome)
                yield instance, Command(command="resolve", by="prover", call=key, decision="done", result=result)
            elif call.status == "intended":
                yield instance, Command(command="resolve", by="prover", call=key, decision="retry")
