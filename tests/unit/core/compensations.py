"""Workflows with compensable scopes, and how they are run: in memory, or stored and restored around every answer."""

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any, Literal

from holdfast.processor.core.machine import Ask, Machine
from holdfast.processor.core.machine import place as place_of
from holdfast.processor.core.outcomes import Raised, Returned
from holdfast.processor.language import compensable as language
from holdfast.processor.language.app import App
from holdfast.processor.language.awaitables import ActivityCall
from holdfast.processor.language.compensable import Compensable
from holdfast.processor.language.compensating import ROUTINES, compensate
from holdfast.processor.language.compiler import compile_workflow
from holdfast.processor.language.routine import reachable, routine
from holdfast.processor.language.scopes import compensable
from holdfast.schemas.errors import CompensationFailed
from tests.support.twin import codec_reload, stored

app = App("compensations")


class Broken(Exception):
    """What an activity that is to fail raises."""


@app.activity
async def do(what: str) -> None: ...


@app.activity
async def undo(what: str) -> None: ...


@app.activity
async def confirm(what: str) -> None: ...


@app.activity
async def cancel(what: str) -> None: ...


def register(scope: Compensable, what: str) -> None:
    """Register what undoes and what confirms something."""
    scope.undo(undo, what)
    scope.confirm(confirm, what)


@dataclass
class Run:
    """What a run did: the activities in order, and how the workflow ended, before and after it was settled."""

    log: list[str] = field(default_factory=list)
    outcome: Returned | Raised | None = None
    places: list[tuple[str, int]] = field(default_factory=list)
    withdrawn: list[str] = field(default_factory=list)

    @property
    def error(self) -> BaseException:
        assert isinstance(self.outcome, Raised)
        return self.outcome.error


Drive = Callable[..., Run]


def settling(outcome: Returned | Raised, policy: str) -> Literal["confirm", "undo"] | None:
    """Say what is to be settled when a workflow has ended."""
    if isinstance(outcome, Returned):
        return "confirm"
    return "undo" if policy == "cancel" and not isinstance(outcome.error, CompensationFailed) else None


def drive(
    function: Callable[..., Any],
    *,
    reload: bool,
    failing: Collection[str] = (),
    policy: Literal["cancel", "abandon"] = "cancel",
    cancel_at: str | None = None,
    last: bool = False,
) -> Run:
    """Run a workflow as an engine does, answering the first ask by place, or the ``last``.

    Activities whose text is among ``failing`` raise ``Broken``; when one is asked for whose text is ``cancel_at``, the
    instance is cancelled instead.
    """
    program = stored(compile_workflow(function, name="w"))
    named = [function.__globals__[name] for name in program.names if name in function.__globals__]
    programs = {routine.name: stored(routine.program) for routine in reachable([*named, *ROUTINES]).values()}
    by_hash = {p.hash: p for p in (program, *programs.values())}
    again = codec_reload(*language.STORED, Broken)
    machine = Machine.start(program, {}, programs.__getitem__)
    run = Run()
    pending: dict[str, Ask] = {}

    def reloaded() -> Machine:
        return Machine.restore(by_hash, again(machine.images()), programs.__getitem__) if reload else machine

    def advance() -> None:
        asks = machine.advance()
        for path in machine.withdrawn:
            run.withdrawn.append(path)
            del pending[path]
        pending.update({ask.path: ask for ask in asks})

    while True:
        advance()
        if machine.outcome is not None:
            run.outcome = machine.outcome
            kind = settling(machine.outcome, policy)
            if kind is None or not machine.settle(kind):
                return run
            continue
        if reload:
            machine = reloaded()
            pending.clear()
            advance()
        ask = pending[sorted(pending, key=place_of)[-1 if last else 0]]
        assert isinstance(ask.awaited, ActivityCall)
        text = f"{ask.awaited.activity} {ask.awaited.args[0]}"
        if text == cancel_at:
            run.log.append(f"cancelled at {text}")
            assert machine.cancel()
            assert not machine.cancel()
            cancel_at = None
            advance()
        else:
            del pending[ask.path]
            run.log.append(text)
            run.places.append((ask.path, ask.visit))
            machine.answer(ask.path, Raised(Broken(text)) if text in failing else Returned())
        machine = reloaded()


async def two_scopes() -> str:
    async with compensable() as a:
        await do("a")
        register(a, "a")
        async with compensable() as b:
            await do("b")
            register(b, "b")
        a.undo(undo, "a again")
        a.confirm(confirm, "a again")
    async with compensable() as c:
        await do("c")
        register(c, "c")
    await do("end")
    return "done"


async def caught() -> str:
    try:
        async with compensable() as a:
            a.undo(undo, "a")
            await do("first")
            a.undo(undo, "a again")
            await do("second")
    except Broken:
        pass
    await do("caught")
    await do("next")
    return "done"


async def around_a_routine() -> None:
    async with compensable() as outer:
        register(outer, "outer")
        await book("inner")
    await compensate(outer)
    await do("end")


@routine
async def book(what: str) -> Compensable:
    async with compensable() as scope:
        register(scope, what)
        await do(what)
    return scope
