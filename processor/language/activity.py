"""Activities: the user functions that a workflow awaits.

A *code activity* is any ``async def`` (awaited in the process) or plain ``def`` (run in a thread); it
runs outside the database transaction. A *record activity* takes a ``Transaction`` as its first
parameter: its SQL commits together with the workflow's state.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property, update_wrapper
from typing import Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar, get_type_hints, overload

import orjson
from pydantic import PydanticSchemaGenerationError, TypeAdapter

from holdfast.processor.language.awaitables import ActivityCall
from holdfast.processor.language.transaction import Transaction
from holdfast.schemas.errors import AppError

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """How often an activity is tried and how long to wait in between.

    ``attempts`` counts all calls, the first included. The n-th wait is ``delay * factor ** (n - 1)``,
    at most ``max_delay``. Only exceptions of the classes ``on`` are retried. Long waits are durable: the
    instance may be unloaded meanwhile.
    """

    attempts: int = 3
    delay: timedelta = timedelta(milliseconds=100)
    factor: float = 2.0
    max_delay: timedelta = timedelta(seconds=5)
    on: tuple[type[Exception], ...] = (Exception,)

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise AppError(f"Retry(attempts={self.attempts}): at least one attempt is needed")
        if self.factor < 1:
            raise AppError(f"Retry(factor={self.factor}): waits cannot shrink, use 1 or more")
        for name in ("delay", "max_delay"):
            if getattr(self, name) < timedelta(0):
                raise AppError(f"Retry({name}={getattr(self, name)}): a wait cannot be negative")

    def tries_again(self, attempt: int, error: BaseException) -> bool:
        """Whether there is another call after the ``attempt``-th, counted from 1, failed with ``error``."""
        return attempt < self.attempts and isinstance(error, self.on)

    def wait(self, attempt: int) -> float:
        """Return the seconds to wait after the ``attempt``-th call failed, counted from 1."""
        bound = self.max_delay.total_seconds()
        try:
            return min(self.delay.total_seconds() * self.factor ** (attempt - 1), bound)
        except OverflowError:
            return bound if self.delay else 0.0


ONCE = Retry(attempts=1)


class Activity(Generic[P, R]):
    """A registered activity; calling it in a workflow gives an awaitable ``ActivityCall``.

    ``function`` is the user's function itself, for tests. The options are those of ``App.activity``.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        name: str,
        retry: Retry = ONCE,
        timeout: timedelta | None = None,
        persist_on_close: bool = False,
        repeatable: bool = True,
        queue: str | None = None,
        heartbeat: timedelta | None = None,
    ) -> None:
        for option, value in (("timeout", timeout), ("heartbeat", heartbeat)):
            if value is not None and value <= timedelta(0):
                raise AppError(f"activity {name}: {option} must be positive, not {value}")
        if heartbeat is not None and queue is None:
            raise AppError(f"activity {name}: a heartbeat is sent by activity workers, so it needs a queue")
        if queue is not None and not repeatable:
            raise AppError(
                f"activity {name}: it is not repeatable, so it cannot be on a queue: "
                "RabbitMQ may deliver a request twice"
            )
        if retry.attempts > 1 and not repeatable:
            raise AppError(f"activity {name}: it is not repeatable, so it cannot have {retry.attempts} attempts")
        self.function = function
        self.name = name
        self.retry = retry
        self.timeout = timeout
        self.persist_on_close = persist_on_close
        self.repeatable = repeatable
        self.queue = queue
        self.heartbeat = heartbeat
        self.is_async = inspect.iscoroutinefunction(function)
        update_wrapper(self, function)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> ActivityCall[R]:
        return ActivityCall(activity=self.name, args=args, kwargs=kwargs)

    def __repr__(self) -> str:
        return f"<activity {self.name}>"

    @cached_property
    def is_record(self) -> bool:
        """Whether the first parameter is a ``Transaction``."""
        parameters = list(inspect.signature(self.function).parameters)
        return bool(parameters) and self.hints.get(parameters[0]) is Transaction

    def check(self) -> None:
        """Raise ``AppError`` if its parameters and its options do not fit together."""
        if not self.is_record:
            return
        if not self.is_async:
            raise AppError(f"record activity {self.name} is a plain function: make it an async def")
        if self.queue is not None:
            raise AppError(
                f"record activity {self.name} cannot be on queue {self.queue!r}: its SQL belongs into the workflow's "
                "transaction, which is not at hand there"
            )
        if not self.repeatable:
            raise AppError(
                f"record activity {self.name} is exactly-once anyway, as it commits with the workflow's state: "
                "take repeatable=False away"
            )

    def returned(self, given: Any) -> Any:
        """Return a JSON value as the type that the function says it returns; as it is if JSON cannot give that type.

        Raises ``ValueError`` if it does not fit.
        """
        return given if self._returns is None else self._returns.validate_json(orjson.dumps(given))

    @cached_property
    def _returns(self) -> TypeAdapter[Any] | None:
        try:
            return TypeAdapter(self.hints.get("return", Any))
        except (PydanticSchemaGenerationError, AppError):
            return None

    @cached_property
    def hints(self) -> dict[str, Any]:
        """The resolved annotations, ``return`` included; ``AppError`` if a name is missing."""
        try:
            return get_type_hints(self.function)
        except NameError as error:
            raise AppError(f"activity {self.name}: annotation names an unknown type: {error}") from None


class ActivityDecorator(Protocol):
    """Makes a function an activity; a ``Transaction`` in front is given by the engine, not by the caller."""

    @overload
    def __call__(self, function: Callable[Concatenate[Transaction, P], Awaitable[R]], /) -> Activity[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, Awaitable[R]], /) -> Activity[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> Activity[P, R]: ...
