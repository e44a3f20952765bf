"""A compose project of its own, brought up from the files in `compose/` and removed at the end."""

import json
import os
import secrets
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import pytest

from tests.architecture.house import ROOT


def command() -> list[str]:
    """Return how Compose is called here: the engine's plugin, or the program of old."""
    if subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode == 0:
        return ["docker", "compose"]
    if shutil.which("docker-compose"):
        return ["docker-compose"]
    pytest.fail("neither `docker compose` nor docker-compose is installed")


class Compose:
    """One project; its containers go with the `with` block."""

    def __init__(self, files: Sequence[str], variables: Mapping[str, str]) -> None:
        self._name = f"holdfast-{secrets.token_hex(4)}"
        self._environment = os.environ | dict(variables) | {"COMPOSE_PROJECT_NAME": self._name}
        self._command = [*command(), *(part for file in files for part in ("-f", file))]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            error.add_note(self.run("logs", "--tail=40", check=False))
        self.run("down", "--volumes", "--timeout=30")

    def run(self, *arguments: str, check: bool = True) -> str:
        """Run a command of Compose and return its output, or fail with it."""
        done = subprocess.run(
            [*self._command, *arguments],
            cwd=ROOT / "compose",
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if check and done.returncode:
            pytest.fail(f"{' '.join(arguments)}:\n{done.stdout}")
        return done.stdout

    def containers(self, service: str) -> list[str]:
        """Return the ids of a service's containers, running or not."""
        return docker(
            *("ps", "--all", "--quiet", "--no-trunc"),
            *("--filter", f"label=com.docker.compose.project={self._name}"),
            *("--filter", f"label=com.docker.compose.service={service}"),
        ).split()


def docker(*arguments: str) -> str:
    """Run a command of the engine and return its output, or fail with it."""
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.fail(f"docker {' '.join(arguments)}:\n{done.stderr}")
    return done.stdout


def state(container: str) -> dict[str, Any]:
    """Return what the engine says of how a container is."""
    found: dict[str, Any] = json.loads(docker("inspect", "--format", "{{json .State}}", container))
    return found
