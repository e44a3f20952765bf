"""A private RabbitMQ node in a container, for machines that have Docker and no RabbitMQ."""

import secrets
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

from compose.local.process import Server, ServerError
from compose.local.rabbitmq import PLUGINS, STARTED, StopMode, free_ports

IMAGE = "rabbitmq:4"


class DockerRabbitMQ:
    """One container, reachable on the loopback interface only; it is made once and removed at the end."""

    def __init__(self) -> None:
        folder = Path(tempfile.mkdtemp(prefix="holdfast-rabbitmq-"))
        (port,) = free_ports(1)
        self._name = f"holdfast-{secrets.token_hex(4)}"
        password = secrets.token_hex(8)
        self.url = f"amqp://holdfast:{password}@127.0.0.1:{port}/"
        self._create = [
            *("create", "--name", self._name, "--hostname", "holdfast"),
            *("--publish", f"127.0.0.1:{port}:5672"),
            *("--env", "RABBITMQ_DEFAULT_USER=holdfast", "--env", f"RABBITMQ_DEFAULT_PASS={password}"),
            IMAGE,
        ]
        self._server = Server(folder, ["docker", "start", "--attach", self._name])
        self._plugins = folder / "enabled_plugins"
        self._plugins.write_text(PLUGINS)

    @staticmethod
    def is_available() -> bool:
        """Tell whether a Docker daemon answers."""
        if shutil.which("docker") is None:
            return False
        return subprocess.run(["docker", "info"], capture_output=True, check=False).returncode == 0

    def start(self) -> None:
        if self._create:
            self._docker(*self._create)
            self._create = []
            self._docker("cp", f"{self._plugins}", f"{self._name}:/etc/rabbitmq/enabled_plugins")
        self._server.start(lambda: self._server.has_said(STARTED), last_signal=signal.SIGTERM, timeout=120)

    def stop(self, mode: StopMode = "orderly") -> None:
        self._docker("stop" if mode == "orderly" else "kill", self._name)
        self._server.wait()

    def close(self) -> None:
        self._server.close()
        if not self._create:
            self._docker("rm", "--force", "--volumes", self._name)

    def _docker(self, *arguments: str) -> None:
        done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False)
        if done.returncode:
            raise ServerError(f"docker {arguments[0]} failed:\n{done.stderr}")
