"""Servers in containers: what `compose/services.yml` names, one of each, reachable on the loopback interface only.

The images can be others, by the variables that the compose file has for them.
"""

import gc
import os
import secrets
import time
import warnings
from collections.abc import Callable, Mapping
from contextlib import closing
from functools import cache, partial

import docker
from docker.errors import DockerException, ImageNotFound
from docker.models.containers import Container
from requests.exceptions import RequestException
from testcontainers.core.container import DockerContainer

from compose.local.postgres import takes_connections
from compose.local.process import ServerError
from compose.local.rabbitmq import STARTED, free_ports
from compose.local.server import DatabaseStopMode, StopMode
from holdfast.processor.broker.configuration import ADVANCED, enabled_plugins

POSTGRES_IMAGE = "postgres:18"
RABBITMQ_IMAGE = "rabbitmq:4.0-management"
PATIENCE = 120
"""Seconds that a server may take to start, and to stop in order."""


def images(given: Mapping[str, str] = os.environ) -> tuple[str, str]:
    """Return the images of Postgres and RabbitMQ."""
    return (
        given.get("HOLDFAST_POSTGRES_IMAGE", POSTGRES_IMAGE),
        given.get("HOLDFAST_RABBITMQ_IMAGE", RABBITMQ_IMAGE),
    )


@cache
def why_not() -> str | None:
    """Return why no containers can be had; None if an engine answers and has the images, or can pull them."""
    with warnings.catch_warnings():
        # docker leaves a socket open when it is refused: it ends here, and not in whatever runs when it is collected.
        warnings.simplefilter("ignore", ResourceWarning)
        try:
            with closing(docker.from_env()) as client:
                _obtain(client)
        except (DockerException, RequestException) as error:
            return str(error)
        finally:
            gc.collect()
    return None


def _obtain(client: docker.DockerClient) -> None:
    client.ping()
    for image in images():
        try:
            client.images.get(image)
        except ImageNotFound:
            client.images.pull(image)


class _Contained:
    """One container, with one port of its own on this machine; it is made once, and removed at the end."""

    def __init__(self, image: str, port: int, variables: dict[str, str], *, command: list[str] | None = None) -> None:
        (self.port,) = free_ports(1)
        self._container = DockerContainer(image, env=variables)
        self._container.ports[f"{port}/tcp"] = ("127.0.0.1", self.port)  # type: ignore[assignment] # docker takes it
        if command:
            self._container.with_command(command)
        self._is_made = False

    @property
    def _made(self) -> Container:
        return self._container.get_wrapped_container()

    def with_file(self, path: str, text: str) -> None:
        """Have the container begin with a file."""
        self._container.with_copy_into_container(text.encode(), path)

    def logs(self) -> str:
        return bytes(self._made.logs()).decode(errors="replace")

    def start(self, ready: Callable[[], bool]) -> None:
        if self._is_made:
            self._made.start()
        else:
            self._is_made = True
            self._container.start()
        deadline = time.monotonic() + PATIENCE
        while not ready():
            self._made.reload()
            if self._made.status not in ("created", "running") or time.monotonic() > deadline:
                raise ServerError(f"{self._container.image} did not start:\n{self.logs()[-4000:]}")
            time.sleep(0.1)

    def run(self, *command: str) -> None:
        """Run a command beside the server."""
        code, output = self._made.exec_run(list(command))
        if code:
            raise ServerError(f"{' '.join(command)} failed: {output!r}")

    def end(self, signal: str) -> None:
        """Send a signal that ends the server, and wait until it has ended."""
        self._made.kill(signal=signal)
        self._made.wait(timeout=PATIENCE)

    def close(self) -> None:
        if self._is_made:
            self._is_made = False
            self._container.stop()


class ContainedPostgres:
    """A Postgres in a container."""

    def __init__(self, image: str) -> None:
        password = secrets.token_hex(8)
        # Postgres's own settings, but for the number of connections, for tests that run several workers.
        self._server = _Contained(
            image,
            5432,
            {"POSTGRES_USER": "postgres", "POSTGRES_PASSWORD": password},
            command=["postgres", "-c", "max_connections=200"],
        )
        self.url = f"postgresql://postgres:{password}@127.0.0.1:{self._server.port}/postgres"

    def start(self) -> None:
        self._server.start(partial(takes_connections, self.url))

    def stop(self, mode: DatabaseStopMode = "fast") -> None:
        self._server.end("SIGINT" if mode == "fast" else "SIGQUIT")

    def restart(self, mode: DatabaseStopMode = "fast") -> None:
        self.stop(mode)
        self.start()

    def close(self) -> None:
        self._server.close()


class ContainedRabbitMQ:
    """A RabbitMQ node in a container."""

    def __init__(self, image: str) -> None:
        password = secrets.token_hex(8)
        self._node = _Contained(image, 5672, {"RABBITMQ_DEFAULT_USER": "holdfast", "RABBITMQ_DEFAULT_PASS": password})
        self._node.with_file("/etc/rabbitmq/enabled_plugins", enabled_plugins())
        self._node.with_file("/etc/rabbitmq/advanced.config", ADVANCED)
        self.url = f"amqp://holdfast:{password}@127.0.0.1:{self._node.port}/"
        self._starts = 0

    def start(self) -> None:
        self._starts += 1
        self._node.start(lambda: self._node.logs().count(STARTED) >= self._starts)

    def stop(self, mode: StopMode = "orderly") -> None:
        self._node.end("SIGTERM" if mode == "orderly" else "SIGKILL")

    def control(self, *arguments: str) -> None:
        self._node.run("rabbitmqctl", *arguments)

    def close(self) -> None:
        self._node.close()
