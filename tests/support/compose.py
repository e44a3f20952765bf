"""A compose project of its own, brought up in `compose/` and removed at the end."""

import json
import os
import re
import secrets
import shlex
import shutil
import subprocess
from collections.abc import Mapping
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
    """One project, of the files that the options name; its containers go with the `with` block."""

    def __init__(self, *options: str, variables: Mapping[str, str] | None = None) -> None:
        self._name = f"holdfast-{secrets.token_hex(4)}"
        self._environment = os.environ | dict(variables or {}) | {"COMPOSE_PROJECT_NAME": self._name}
        self._command = [*command(), *options]

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
        return self._call([*self._command, *arguments], check=check)

    def follow(self, lines: str) -> None:
        """Run lines of a page, in which `docker compose -f … --env-file FILE` stands for this project."""
        own = shlex.join(self._command)
        self._call(["sh", "-ec", re.sub(r"docker compose -f \S+ --env-file FILE", lambda _: own, lines)], check=True)

    def _call(self, command: list[str], *, check: bool) -> str:
        done = subprocess.run(
            command,
            cwd=ROOT / "compose",
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if check and done.returncode:
            pytest.fail(f"{' '.join(command)}:\n{done.stdout}")
        return done.stdout

    def containers(self, service: str | None = None) -> list[str]:
        """Return the ids of a service's containers, or of all, running or not."""
        labels = {"project": self._name} | ({"service": service} if service else {})
        filters = [f"--filter=label=com.docker.compose.{name}={value}" for name, value in labels.items()]
        return docker("ps", "--all", "--quiet", "--no-trunc", *filters).split()


def docker(*arguments: str) -> str:
    """Run a command of the engine and return its output, or fail with it."""
    done = subprocess.run(
        ["docker", *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if done.returncode:
        pytest.fail(f"docker {' '.join(arguments)}:\n{done.stdout}")
    return done.stdout


def inspect(thing: str) -> dict[str, Any]:
    """Return what the engine says of a container or an image."""
    found: list[dict[str, Any]] = json.loads(docker("inspect", thing))
    return found[0]


def state(container: str) -> dict[str, Any]:
    """Return what the engine says of how a container is."""
    found: dict[str, Any] = inspect(container)["State"]
    return found


def is_healthy(container: str) -> bool:
    return bool(state(container)["Health"]["Status"] == "healthy")
