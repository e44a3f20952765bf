"""RabbitMQ in a container, against a `docker` that only keeps account of what it is told."""

import os
import sys
from pathlib import Path

import pytest

from compose.local.docker import DockerRabbitMQ
from compose.local.process import ServerError

# It notes each call; `start --attach` stays until `stop`, `kill` or a signal ends it, as a container would.
DOCKER = """\
#!{python}
import os, signal, sys
from pathlib import Path
home = Path(__file__).parent
command = sys.argv[1]
with open(home / "calls", "a") as calls:
    print(*sys.argv[1:], file=calls)
if (home / "refuses").exists() and command == "create":
    sys.exit("no such image")
if command == "start":
    Path(home / "pid").write_text(str(os.getpid()))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    print("Starting broker... completed with 1 plugins.", flush=True)
    signal.pause()
if command in ("stop", "kill"):
    os.kill(int((home / "pid").read_text()), signal.SIGTERM if command == "stop" else signal.SIGKILL)
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    docker = tmp_path / "docker"
    docker.write_text(DOCKER.format(python=sys.executable))
    docker.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return tmp_path


def calls(home: Path) -> list[str]:
    return [line.split()[0] for line in (home / "calls").read_text().splitlines()]


def test_a_container_is_made_once_stopped_started_again_and_removed(home: Path) -> None:
    assert DockerRabbitMQ.is_available()
    node = DockerRabbitMQ()
    node.start()
    node.stop()
    node.start()
    node.stop("kill")
    node.start()
    node.close()
    assert calls(home) == ["info", "create", "cp", "start", "stop", "start", "kill", "start", "rm"]


def test_the_container_is_reached_on_the_loopback_interface_only(home: Path) -> None:
    node = DockerRabbitMQ()
    node.start()
    node.close()
    port = node.url.rsplit(":", 1)[1].rstrip("/")
    assert f"--publish 127.0.0.1:{port}:5672 " in (home / "calls").read_text()


def test_what_docker_refuses_is_said(home: Path) -> None:
    (home / "refuses").touch()
    node = DockerRabbitMQ()
    with pytest.raises(ServerError, match="no such image"):
        node.start()
    node.close()
