"""A process that serves until it is told to stop: its event loop, its signals, its log."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Coroutine
from typing import Any, Protocol

import structlog
import uvloop
from structlog.typing import Processor

from holdfast.processor.engine.cut_short import cut_short, ended
from holdfast.processor.log_context import log_context

log = structlog.get_logger("holdfast.process")


class Serve(Protocol):
    """What is served; it ends in order once ``stop`` is set."""

    def __call__(self, *, stop: asyncio.Event) -> Coroutine[Any, Any, None]: ...


def run_until_signalled(serve: Serve) -> None:
    """Run ``serve`` until SIGTERM or SIGINT; a second signal ends the process at once. Raises what it raises."""
    configure_logging()
    uvloop.run(_run(serve))


async def _run(serve: Serve) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _stop_or_die, stop)
    await serve(stop=stop)
    await _leave_behind()


async def _leave_behind() -> None:
    """End the process without the threads, and the tasks that heed no cancellation, which would hold it up.

    They are the user's code, which is cut short, as its worker has stopped.
    """
    loop = asyncio.get_running_loop()
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    count = await cut_short(tasks)
    count += await ended([loop.create_task(loop.shutdown_default_executor())])
    if count:
        log.warning("left behind", tasks=count)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


def _stop_or_die(stop: asyncio.Event) -> None:
    if stop.is_set():
        os._exit(1)
    stop.set()


def configure_logging() -> None:
    """Log to standard error: coloured lines on a terminal, one JSON object a line elsewhere; libraries too.

    An app that has configured structlog or ``logging`` itself keeps what it has.
    """
    renderer = (
        structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
        if sys.stderr.isatty()
        else structlog.processors.JSONRenderer()
    )
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        log_context,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if not structlog.is_configured():
        structlog.configure(
            processors=[*shared, structlog.processors.format_exc_info, renderer],
            logger_factory=structlog.PrintLoggerFactory(sys.stderr),
            cache_logger_on_first_use=True,
        )
    # What the AMQP library meets is said again, in our words, by the connection that used it.
    logging.getLogger("aiormq").setLevel(logging.CRITICAL)
    if logging.getLogger().handlers:
        return
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(processor=renderer, foreign_pre_chain=shared))
    logging.basicConfig(handlers=[handler], level=logging.WARNING)
