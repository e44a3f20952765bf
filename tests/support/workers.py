"""Worker processes, run as a user runs them, to be killed and started again by a test."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import psycopg

from tests.support.commands import HOLDFAST, ROOT, Command


def environment(database_url: str, amqp_url: str, **settings: object) -> dict[str, str]:
    """Return the environment of a ``holdfast`` command; ``settings`` are named as in ``Settings``."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("HOLDFAST_")}
    given = {f"HOLDFAST_{name.upper()}": str(value) for name, value in settings.items()}
    addresses = {"HOLDFAST_DATABASE_URL": database_url, "HOLDFAST_AMQP_URL": amqp_url}
    return inherited | addresses | given


def eventually(what: str, condition: Callable[[], bool], timeout: float = 180) -> None:
    """Return as soon as ``condition`` holds; fail if it does not within ``timeout`` seconds."""
    deadline = time.monotonic() + timeout
    pause = 0.02
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout} s: {what}")
        time.sleep(pause)
        # Most conditions are asked of the database, by a connection that is made for that: seldom, if they take long.
        pause = min(1.3 * pause, 0.3)


def await_hosts(database_url: str, count: int) -> None:
    """Wait until that many workers have a lease; before they ask for one they have declared exchanges and queues."""

    def are_there() -> bool:
        with psycopg.connect(database_url) as connection:
            found = connection.execute("select count(*) from holdfast.hosts where lease_expiration > now()").fetchone()
        return found is not None and found[0] >= count

    eventually(f"{count} workers have a lease", are_there)


def _start(command: Sequence[str | Path], env: dict[str, str], log: Path) -> Command | subprocess.Popen[bytes]:
    program, *arguments = command
    log.write_bytes(b"")
    if program == HOLDFAST:
        return Command([f"{it}" for it in arguments], env, log, log)
    with log.open("ab") as output:
        return subprocess.Popen(command, env=env, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=output, stderr=output)


class Worker:
    """One worker process, started by a command line; its output goes to a file."""

    def __init__(self, command: Sequence[str | Path], env: dict[str, str], log: Path) -> None:
        self.log = log
        self.process = _start(command, env, log)

    @property
    def output(self) -> str:
        """What the process has written so far."""
        return self.log.read_text(errors="replace")

    @property
    def is_running(self) -> bool:
        """Whether the process has not ended."""
        return self.process.poll() is None

    def kill(self) -> None:
        """End the process as a power cut would."""
        self.process.kill()
        self.process.wait()

    def stop(self, timeout: float = 30) -> int:
        """Ask the process to end and return its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout)


class Workers:
    """The workers of one app; those that still run are killed at the end of the ``with`` block."""

    def __init__(self, app: str, env: dict[str, str], folder: Path) -> None:
        self.all: list[Worker] = []
        self._app = app
        self._env = env
        self._folder = folder

    def start(self) -> Worker:
        """Start one more worker."""
        return self.run(HOLDFAST, "worker", self._app)

    def start_activities(self, queue: str) -> Worker:
        """Start one more worker of the app's activities on a queue."""
        return self.run(HOLDFAST, "activities", self._app, "--queue", queue)

    def run(self, *command: str | Path) -> Worker:
        """Start one more worker by a command line."""
        worker = Worker(command, self._env, self._folder / f"worker-{len(self.all)}.log")
        self.all.append(worker)
        return worker

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for worker in self.all:
            if worker.is_running:
                worker.kill()
        if error is not None:
            for worker in self.all:
                error.add_note(f"the last lines of {worker.log.name}:\n" + "\n".join(worker.output.splitlines()[-15:]))
