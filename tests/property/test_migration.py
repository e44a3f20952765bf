"""A running function goes on in a program that has more steps elsewhere as it would have without having been moved."""

import re
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, Phase, event, given, settings
from hypothesis import strategies as st

from holdfast.events.types import Persisted
from holdfast.processor.core.migration import Obstacle, _batch, _move, _Moved, _Versions
from holdfast.processor.engine.persistence_point import Encoder, images_of
from holdfast.processor.language.compiler import compile_workflow
from holdfast.processor.language.program import Program
from holdfast.projections.instance import InstanceState, fold
from tests.property.test_random_programs import TYPES, History
from tests.support.length import length
from tests.support.native_source import instrumented
from tests.support.program_world import effects_of
from tests.support.programs import Sample, samples
from tests.support.twin import Images, Result, routines_of, run_machine, run_native, stored

EXAMPLES = length(60, long=1000)

NEVER = """\
    for never in ():
        try:
            await act("never")
        except ValueError as nobody:
            await act("nor this")
"""
"""Steps that do not run, but shift all that comes after them, hidden variables too."""

CLAUSES = ("else", "elif", "except", "finally", "case")


class Migrating(History):
    """Keeps an instance as events, and moves it to the newer program as soon as that can be."""

    def __init__(self, programs: dict[str, Program], points: tuple[str, ...], old: Program, new: Program) -> None:
        super().__init__(programs, points)
        self.old = old.hash
        self.versions = _Versions(old, new)
        self.refusals: Counter[str] = Counter()
        self.moves = 0

    def __call__(self, images: Images) -> Images:
        super().__call__(images)
        if self.state.version == 0 or self.points[(self.passed - 1) % len(self.points)] != "reload":
            return images
        self.move()
        return images_of(self.state, TYPES)

    def move(self) -> None:
        moved = {}
        for path, frame in self.state.frames.items():
            if frame.program == self.old:
                found = _move(path, frame, self.versions)
                if isinstance(found, Obstacle):
                    self.refusals[found.reason] += 1
                elif isinstance(found, _Moved):
                    moved[path] = found
        if moved:
            self.moves += 1
            events = _batch(self.state, moved, "ann", None)
            assert isinstance(events[-1], Persisted)
            self.events += events
            self.state: InstanceState = fold(events, self.state)
            self.encoder = Encoder.of(self.state, TYPES)


def with_more_steps(source: str, where: list[bool]) -> str:
    """Return the source with steps put in before some of the workflow's own statements, the first one always."""
    head, header, body = source.rpartition("async def w(")
    first, *lines = body.splitlines(keepends=True)
    wanted = iter([True, *where])
    text = head + header + first
    for line in lines:
        is_statement = re.match(r"    \w", line) is not None and not line.strip().startswith(CLAUSES)
        text += (NEVER if is_statement and next(wanted, False) else "") + line
    return text


def without_lines(result: Result) -> Result:
    """Return a result without the lines at which things were awaited, and without variables that only one has."""
    log = [re.sub(r" at line \d+", "", entry) for entry in result.log]
    return replace(result, log=log)


@settings(
    max_examples=EXAMPLES,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    report_multiple_bugs=False,
    phases=set(Phase) - {Phase.explain},
)
@given(samples(), st.lists(st.booleans(), max_size=8))
@pytest.mark.timeout(600 + EXAMPLES)
def test_what_is_moved_ends_as_it_would_have_ended(sample: Sample, where: list[bool]) -> None:
    newer = replace(sample, source=with_more_steps(sample.source, where))
    with sample.function() as function, newer.function() as other:
        told, routines = instrumented(function)
        native = run_native(told, sample.arguments(), effects_of(sample.failures), routines, **sample.options())
        old, new = (stored(compile_workflow(each, name="twin")) for each in (function, other))
        programs = {p.hash: p for p in (old, new, *routines_of(old).values())}
        kept = Migrating(programs, sample.points, old, new)
        effects = effects_of(sample.failures)
        found = run_machine(function, sample.arguments(), effects, kept, old, further=[new], **sample.options())
    event("moved" if kept.moves else f"refused: {', '.join(sorted(kept.refusals))}" if kept.refusals else "not asked")
    difference = without_lines(native).difference(without_lines(found))
    if difference is not None:
        pytest.fail(f"{difference}\nmoves {kept.moves}\n{sample!r}\n\n{newer.source}", pytrace=False)
    assert fold(kept.events) == kept.state
