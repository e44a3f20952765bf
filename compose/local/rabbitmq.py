"""A private RabbitMQ node, from what is installed on this machine.

The node has ports, a name, a password, a cookie, configuration and data of its own, in a folder of its own, and listens
on the loopback interface only, so that it neither meets nor disturbs a node that the system may run. The port mapper
that Erlang nodes share (epmd) is a private one too: a node starts one that outlives it, unless it finds one running.
"""

import os
import secrets
import shutil
import signal
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path

import aiormq

from compose.local.place import new_folder
from compose.local.process import Server, ServerError
from compose.local.server import StopMode
from holdfast.processor.broker.configuration import ADVANCED, enabled_plugins

CONFIGURATION = """\
listeners.tcp.1 = 127.0.0.1:{port}
default_user = holdfast
default_pass = {password}
log.console = true
log.console.level = warning
log.file = false
"""
# What a node says last when it starts. Its port is open before its plugins are ready.
STARTED = "completed with"


def find_server() -> Path | None:
    """Find the start script of an installed RabbitMQ, or nothing.

    What Debian puts on the PATH is a wrapper that changes to a system user, so its original is looked for first.
    """
    for place in ("/usr/lib/rabbitmq/bin/rabbitmq-server", shutil.which("rabbitmq-server")):
        if place and Path(place).exists():
            return Path(place)
    return None


class RabbitMQ:
    """One private node, of the RabbitMQ whose start script is given."""

    def __init__(self, script: Path) -> None:
        folder = new_folder("rabbitmq")
        port, distribution, mapper = free_ports(3)
        password = secrets.token_hex(8)
        self.url = f"amqp://holdfast:{password}@127.0.0.1:{port}/"
        (folder / "rabbitmq.conf").write_text(CONFIGURATION.format(port=port, password=password))
        (folder / "enabled_plugins").write_text(enabled_plugins())
        (folder / "advanced.config").write_text(ADVANCED)
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("RABBITMQ_", "ERL_"))},
            "HOME": f"{folder}",
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": f"{mapper}",
            "RABBITMQ_ADVANCED_CONFIG_FILE": f"{folder}/advanced.config",
            "RABBITMQ_CONFIG_FILE": f"{folder}/rabbitmq.conf",
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_DIST_PORT": f"{distribution}",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{folder}/enabled_plugins",
            "RABBITMQ_LOG_BASE": f"{folder}/logs",
            "RABBITMQ_MNESIA_BASE": f"{folder}/data",
            "RABBITMQ_NODENAME": "holdfast@localhost",
            "RABBITMQ_PID_FILE": f"{folder}/pid",
            # Makes the script become the node, rather than stay as its parent and leave it an orphan when killed.
            "RUNNING_UNDER_SYSTEMD": "true",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
        }
        self._node = Server(folder, [f"{script}"], environment=environment)
        self._mapper = _port_mapper(mapper, environment)
        self._environment = environment
        self._control = script.with_name("rabbitmqctl")

    def start(self) -> None:
        if not self._mapper.is_running:
            self._mapper.start(lambda: True, last_signal=signal.SIGKILL, timeout=5)
        # Its data go with it, so at its end the node need not take the seconds that an orderly stop takes.
        self._node.start(lambda: self._node.has_said(STARTED), last_signal=signal.SIGKILL, timeout=120)

    def stop(self, mode: StopMode = "orderly") -> None:
        self._node.stop(signal.SIGTERM if mode == "orderly" else signal.SIGKILL)

    def control(self, *arguments: str) -> None:
        done = subprocess.run(
            [self._control, *arguments], env=self._environment, capture_output=True, text=True, timeout=180, check=False
        )
        if done.returncode:
            raise ServerError(f"rabbitmqctl {' '.join(arguments)} failed: {done.stdout}{done.stderr}")

    def close(self) -> None:
        self._node.close()
        self._mapper.close()


def _port_mapper(port: int, environment: Mapping[str, str]) -> Server:
    program = shutil.which("epmd")
    if program is None:
        raise ServerError("epmd, which comes with Erlang and so with RabbitMQ, is not on the PATH")
    folder = new_folder("epmd")
    return Server(folder, [program, "-port", f"{port}", "-address", "127.0.0.1"], environment=environment)


def free_ports(count: int) -> list[int]:
    """Find ports on the loopback interface that nobody listens on."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [open_socket.getsockname()[1] for open_socket in sockets]
    for open_socket in sockets:
        open_socket.close()
    return ports


async def version_of(url: str) -> str:
    """Return the version of the node at an address."""
    connection = await aiormq.connect(url)
    try:
        return str(connection.server_properties["version"])
    finally:
        await connection.close()
