"""Durable business workflows out of RabbitMQ and Postgres, one `async def` each.

This is the front door: every public name, and nothing else. A name is loaded when it is first asked for, so that
importing one part of the package, `holdfast.schemas` say, does not load the others.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from holdfast.processor.language.activity import Retry
    from holdfast.processor.language.app import App
    from holdfast.processor.language.awaitables import Outcome, checkpoint, delay, first_of, receive, send
    from holdfast.processor.language.transaction import Transaction
    from holdfast.schemas.errors import HoldfastError
    from holdfast.schemas.message import Message

__all__ = [
    "App",
    "HoldfastError",
    "Message",
    "Outcome",
    "Retry",
    "Transaction",
    "checkpoint",
    "delay",
    "first_of",
    "receive",
    "send",
]

_HOMES = {
    "App": "holdfast.processor.language.app",
    "HoldfastError": "holdfast.schemas.errors",
    "Message": "holdfast.schemas.message",
    "Outcome": "holdfast.processor.language.awaitables",
    "Retry": "holdfast.processor.language.activity",
    "Transaction": "holdfast.processor.language.transaction",
    "checkpoint": "holdfast.processor.language.awaitables",
    "delay": "holdfast.processor.language.awaitables",
    "first_of": "holdfast.processor.language.awaitables",
    "receive": "holdfast.processor.language.awaitables",
    "send": "holdfast.processor.language.awaitables",
}


if not TYPE_CHECKING:  # Type checkers would take it for a promise that there is every name.

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
