"""Workflow functions that between them use every part of the language around awaits.

They stand in modules of their own, since pytest rewrites the ``assert`` statements of test modules. Each is run with
every one of its arguments, once with all awaits answered, and once for each await with that one failing.
"""

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from tests.support.twin import note

Case = tuple[Callable[..., Any], list[dict[str, Any]]]

_cases: list[Case] = []


def case(*arguments: dict[str, Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Take a function into the corpus, to be run with each of some arguments."""

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        _cases.append((function, list(arguments) or [{}]))
        return function

    return register


def cases(*modules: ModuleType) -> list[Case]:
    """Return the functions of some modules, with their arguments."""
    names = {module.__name__ for module in modules}
    return [(function, arguments) for function, arguments in _cases if function.__module__ in names]


@dataclass
class Box:
    value: Any = None
    other: Any = None


@dataclass
class Truth:
    value: Any

    def __bool__(self) -> bool:
        note(f"bool {self.value}")
        return bool(self.value)


class Counted(Exception):
    pass


LIMIT = 10


class config:  # noqa: N801 - a name in lower case, as that of a module
    limit = 3

    class deep:  # noqa: N801 - the same
        double = staticmethod(lambda value: value * 2)


def boom(*args: Any) -> Any:
    raise Counted(*args)
