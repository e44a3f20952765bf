"""Random workflow functions, to be run by Python and by a machine.

``samples()`` draws the source of an ``async def`` and of the routines that it calls, with arguments and the awaits
that fail. By the way it is made every function compiles and ends; what it does, errors of every kind included, is
whatever comes.
"""

import contextlib
import itertools
import linecache
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from hypothesis import strategies as st

from tests.support.program_calls import SIGNATURES, Routine
from tests.support.program_expressions import Choose
from tests.support.program_statements import Writer
from tests.support.program_world import ERRORS, NAMES, Box, Ledger
from tests.support.twin import ORDERS, Order

_numbers = itertools.count(1)


@dataclass(frozen=True, repr=False)
class Sample:
    """A function and what happens to it.

    ``failures`` says which awaits fail and how, ``shared`` what the arguments have in common, ``order`` which of
    several things is answered first, ``settles`` whether an error undoes what can be undone, ``cancel_at`` instead of
    which answer it is cancelled, and ``points`` what is done before and after each await in turn: nothing, persist, or
    persist and reload.
    """

    source: str
    failures: dict[int, str]
    shared: str
    order: Order
    settles: bool
    cancel_at: int | None
    points: tuple[str, ...]

    def __repr__(self) -> str:
        names = "failures", "shared", "order", "settles", "cancel_at", "points"
        happens = ", ".join(f"{name} {getattr(self, name)}" for name in names)
        return f"{happens}\n\n{self.source}\n"

    def arguments(self) -> dict[str, Any]:
        """Make the arguments anew, with the aliases between them."""
        xs: list[Any] = [1, 2, 3]
        ys: list[Any] = xs if self.shared == "list" else [xs] if self.shared == "inner" else []
        ds: dict[str, Any] = {"a": xs, "b": 1}
        box = Box(value=ys, other=ds if self.shared == "dict" else None)
        ledger = Ledger(items=[1, box], owner=box)
        return {"xs": xs, "ys": ys, "ds": ds, "ss": {1, 2}, "b": box, "m": ledger, "i": 1, "n": 2, "s": "text"}

    def options(self) -> dict[str, Any]:
        """Give what decides how a run goes on."""
        return {"order": self.order, "settles": self.settles, "cancel_at": self.cancel_at}

    @contextlib.contextmanager
    def function(self) -> Iterator[Callable[..., Any]]:
        """Define the function in a module of its own, with its source where Python looks for it."""
        number = next(_numbers)
        file, module = f"<program {number}>", ModuleType(f"generated_{number}")
        linecache.cache[file] = len(self.source), None, self.source.splitlines(keepends=True), file
        sys.modules[module.__name__] = module
        vars(module).update(NAMES)
        try:
            exec(compile(self.source, file, "exec"), vars(module))  # noqa: S102 - the source is made here
            yield module.w
        finally:
            del linecache.cache[file], sys.modules[module.__name__]


_BELOW = [st.integers(0, max(0, limit - 1)) for limit in range(64)]


@st.composite
def samples(draw: st.DrawFn) -> Sample:
    """Draw a function with all that decides what it does."""
    return Sample(
        source=_source(lambda limit: draw(_BELOW[limit])),
        failures=draw(st.dictionaries(st.integers(0, 12), st.sampled_from(list(ERRORS)), max_size=3)),
        shared=draw(st.sampled_from(["nothing", "list", "inner", "dict"])),
        order=draw(st.sampled_from(ORDERS)),
        settles=draw(st.booleans()),
        cancel_at=draw(st.one_of(st.none(), st.integers(0, 8))),
        points=tuple(draw(st.lists(st.sampled_from(["reload", "persist", "nothing"]), min_size=1, max_size=6))),
    )


def _source(choose: Choose) -> str:
    routines = [Routine(f"r{number}", SIGNATURES[choose(len(SIGNATURES))]) for number in range(choose(4))]
    functions = [Writer(choose, routines).routine(routine) for routine in routines]
    return "\n\n\n".join([*functions, Writer(choose, routines).workflow()])
