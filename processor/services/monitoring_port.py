"""The port on which a process tells how it is doing: ``/metrics``, ``/healthz`` and ``/readyz``.

It is served from a thread of its own, and everything that it tells is asked of the event loop first. So an event loop
that hangs is found out by whoever asks, and nothing is read while the loop changes it.

Alive (``/healthz``) is a process whose event loop turns: whatever else may be wrong, it mends itself, and to end the
process would only cost what it has not persisted. Ready (``/readyz``) is one that can do its work now.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine, Iterable, Mapping
from concurrent.futures import CancelledError
from contextlib import asynccontextmanager
from socketserver import ThreadingMixIn
from threading import Thread
from typing import TYPE_CHECKING, Any, Protocol, TypeVar
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import orjson
import structlog
from prometheus_client import REGISTRY, make_wsgi_app
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from holdfast.schemas.errors import SettingsError
from holdfast.schemas.settings import Settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from wsgiref.types import StartResponse, WSGIEnvironment

log = structlog.get_logger("holdfast.monitoring")

PATIENCE = 5.0
"""Seconds that the event loop may take to answer."""

T = TypeVar("T")


class Monitor(Protocol):
    """What a process can tell of itself; both are asked for on its event loop."""

    async def metrics(self) -> Iterable[Metric]:
        """Return the families of metrics."""
        ...

    async def problems(self) -> Mapping[str, str]:
        """Return what keeps the process from being ready, by what it is about; empty if nothing does."""
        ...


@asynccontextmanager
async def monitoring_port(monitor: Monitor, settings: Settings) -> AsyncIterator[int | None]:
    """Serve the port while the ``async with`` block lasts, and give its number; None if the settings want none.

    Raises ``SettingsError`` if it cannot be opened. What else is registered with prometheus_client is served too.
    """
    if settings.metrics_port is None:
        yield None
        return
    asked = _Asked(monitor, asyncio.get_running_loop())
    server = _open(settings.metrics_address, settings.metrics_port, asked)
    thread = Thread(target=server.serve_forever, name="holdfast monitoring", daemon=True)
    REGISTRY.register(asked)
    thread.start()
    log.info("monitoring", address=settings.metrics_address, port=server.server_port)
    try:
        yield server.server_port
    finally:
        REGISTRY.unregister(asked)
        # The loop goes on meanwhile, as an answer that is under way needs it.
        await asyncio.to_thread(server.shutdown)
        server.server_close()


class _Asked(Collector):
    """Answers the thread of the server by asking the event loop."""

    def __init__(self, monitor: Monitor, loop: asyncio.AbstractEventLoop) -> None:
        self._monitor = monitor
        self._loop = loop
        self._metrics = make_wsgi_app(REGISTRY)

    def describe(self) -> Iterable[Metric]:
        """Return nothing: without this the registry would collect at once, on the event loop that is to be asked."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """Return the families; ``TimeoutError`` if the event loop hangs."""
        return self._ask(self._monitor.metrics)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request."""
        try:
            match environ["PATH_INFO"]:
                case "/metrics":
                    return list(self._metrics(environ, start_response))
                case "/healthz":
                    self._ask(_turn)
                    return _answer(start_response, "200 OK", {"status": "alive"})
                case "/readyz":
                    problems = self._ask(self._monitor.problems)
                    if problems:
                        return _answer(
                            start_response, "503 Service Unavailable", {"status": "not ready", "problems": problems}
                        )
                    return _answer(start_response, "200 OK", {"status": "ready"})
            return _answer(start_response, "404 Not Found", {"status": "there are /metrics, /healthz and /readyz"})
        except (TimeoutError, CancelledError):
            status = f"the event loop gave no answer within {PATIENCE:g} s"
            return _answer(start_response, "503 Service Unavailable", {"status": status})

    def _ask(self, question: Callable[[], Coroutine[Any, Any, T]]) -> T:
        future = asyncio.run_coroutine_threadsafe(question(), self._loop)
        try:
            return future.result(PATIENCE)
        finally:
            future.cancel()


async def _turn() -> None:
    """Be run by the event loop, which is all that is asked of it."""


def _answer(start_response: StartResponse, status: str, body: Mapping[str, object]) -> list[bytes]:
    start_response(status, [("Content-Type", "application/json")])
    return [orjson.dumps(body) + b"\n"]


class _Server(ThreadingMixIn, WSGIServer):
    """Answers each request in a thread of its own, so that one that takes long keeps no probe waiting."""

    daemon_threads = True
    # A request that waits for the event loop must not keep the loop from ending.
    block_on_close = False


class _Server6(_Server):
    address_family = socket.AF_INET6


class _Silent(WSGIRequestHandler):
    """Logs no requests: probes come every few seconds."""

    timeout = 30

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


def _open(address: str, port: int, asked: _Asked) -> WSGIServer:
    kind = _Server6 if ":" in address else _Server
    try:
        return make_server(address, port, asked, kind, _Silent)
    except OSError as error:
        raise SettingsError(
            f"HOLDFAST_METRICS_PORT: cannot open port {port} on {address}: {error.strerror or error}"
        ) from None
