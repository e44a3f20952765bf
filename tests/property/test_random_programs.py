"""Any workflow function does in a machine what it does in Python, wherever it is stored and loaded again."""

import gc
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, event, given, settings

from holdfast.events import codec
from holdfast.events.types import Event
from holdfast.processor.core.machine import Machine
from holdfast.processor.engine.persistence_point import Encoder, images_of
from holdfast.processor.language import compensable
from holdfast.processor.language.awaitables import STORED
from holdfast.processor.language.compiler import compile_workflow
from holdfast.processor.language.program import Program
from holdfast.projections.instance import evolve, fold, initial
from holdfast.schemas.values import Types
from tests.support.length import length
from tests.support.native_source import instrumented
from tests.support.program_world import CLASSES, effects_of
from tests.support.programs import Sample, samples
from tests.support.twin import Images, Result, codec_reload, routines_of, run_machine, run_native, stored

EXAMPLES = length(150, long=3000)
"""How many functions to try."""

MODULES = ("math",)
TYPES = Types.of(*STORED, *compensable.STORED, *CLASSES, modules=MODULES)

reload = codec_reload(*compensable.STORED, *CLASSES, modules=MODULES)


class History:
    """Keeps an instance as events, and loads it from the state that they fold to.

    ``points`` says in turn what happens where it may be kept: nothing, persist, or persist and reload.
    """

    def __init__(self, programs: dict[str, Program], points: tuple[str, ...]) -> None:
        self.programs = programs
        self.points = points
        self.encoder = Encoder(TYPES)
        self.state = initial
        self.events: list[Event] = []
        self.passed = 0

    def __call__(self, images: Images) -> Images:
        point = self.points[self.passed % len(self.points)]
        self.passed += 1
        if point == "nothing":
            return images
        machine = Machine.restore(self.programs, images)
        persisted, self.encoder.texts = self.encoder.persisted("activity_completed", machine, self.state)
        event = codec.decode(*codec.encode(persisted))
        self.events.append(event)
        self.state = evolve(self.state, event)
        if point == "persist":
            return images
        self.encoder = Encoder.of(self.state, TYPES)
        return images_of(self.state, TYPES)


def difference(sample: Sample, function: Callable[..., Any], native: Result) -> str | None:
    """Say what a machine gives that differs from Python: in memory, reloaded at each await, or kept as a history."""
    effects = effects_of(sample.failures)
    program = stored(compile_workflow(function, name="twin"))
    history = History({p.hash: p for p in (program, *routines_of(program).values())}, sample.points)
    for way, kept in (
        ("in memory", None),
        ("reloaded at each await", reload),
        ("kept as a history", history),
    ):
        found = native.difference(run_machine(function, sample.arguments(), effects, kept, program, **sample.options()))
        if found is not None:
            return f"{way}: {found}"
    if fold(history.events) != history.state:
        return "the history does not fold to the state"
    return None


@pytest.fixture
def _fast_collections() -> Iterator[None]:
    """Keep the garbage collector from what was there before: compiling makes it run all the time."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.usefixtures("_fast_collections")
@settings(
    max_examples=EXAMPLES,
    # A program is large beside what a test usually draws.
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    report_multiple_bugs=False,
    phases=set(Phase) - {Phase.explain},
)
@given(samples())
@pytest.mark.timeout(600 + EXAMPLES)
def test_a_machine_gives_what_python_gives(sample: Sample) -> None:
    with sample.function() as function:
        told, routines = instrumented(function)
        native = run_native(told, sample.arguments(), effects_of(sample.failures), routines, **sample.options())
        found = difference(sample, function, native)
    awaits = sum(entry.startswith("await") for entry in native.log)
    event("awaits", "none" if not awaits else "1 to 3" if awaits < 4 else "4 to 9" if awaits < 10 else "10 or more")
    event("ends with", type(native.error).__name__)
    if found is not None:
        pytest.fail(f"{found}\n{sample!r}", pytrace=False)
