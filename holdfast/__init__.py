"""Durable business workflows out of RabbitMQ and Postgres, one `async def` each.

This is the front door: every public name, and nothing else. A name is loaded when it is first asked for, so that
importing one part of the package, `holdfast.schemas` say, does not load the others.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from holdfast.schemas.errors import HoldfastError

__all__ = [
    "HoldfastError",
]

_HOMES = {
    "HoldfastError": "holdfast.schemas.errors",
}


def __getattr__(name: str) -> object:
    """Load a public name from the module it lives in, and keep it."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names, loaded or not."""
    return sorted({*globals(), *__all__})
