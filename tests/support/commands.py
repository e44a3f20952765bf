"""The command ``holdfast``, each time in a process of its own, as on a command line.

Tests run it many hundreds of times, and most of what it costs is to import the product. So its processes are forked
from one that has done that and nothing else. They share what Python decides as it starts, such as the seed of hashes,
and end without its clearing up. Where that matters, or a terminal or a pipe, ``HOLDFAST`` is started as it is.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from holdfast.processor.cli import main

ROOT = Path(__file__).parents[2]
HOLDFAST = Path(sys.executable).with_name("holdfast")

_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload(
    [
        __name__,
        "aio_pika",
        "holdfast.processor.cli.output",
        "holdfast.processor.client",
        "holdfast.processor.exporting.exports",
        "holdfast.processor.following",
        "holdfast.processor.forking",
        "holdfast.processor.migrating",
        "holdfast.processor.process",
        "holdfast.processor.replaying",
        "holdfast.processor.worker",
        "rich.table",
    ]
)


def holdfast(*arguments: str, env: Mapping[str, str], timeout: float = 180) -> subprocess.CompletedProcess[str]:
    """Run one ``holdfast`` command to its end, in the environment ``env`` and without input."""
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder, "out"), Path(folder, "err")
        command = Command(arguments, env, out, err)
        try:
            code = command.wait(timeout)
        finally:
            command.kill()
        return subprocess.CompletedProcess(arguments, code, out.read_text(), err.read_text())


class Command:
    """A ``holdfast`` command that runs; the part of ``subprocess.Popen`` that tests need."""

    def __init__(self, arguments: Sequence[str], env: Mapping[str, str], out: Path, err: Path) -> None:
        self._arguments = arguments
        self._process = _forks.Process(target=_run, args=(arguments, dict(env), out, err), daemon=True)
        self._process.start()
        pid = self._process.pid
        assert pid is not None
        self.pid = pid

    @property
    def returncode(self) -> int | None:
        """How it ended, or minus the number of the signal that ended it; None while it runs."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """Return how it ended, if it has."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end, and return how it ended."""
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired(["holdfast", *self._arguments], timeout or 0)
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self._process.exitcode is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End it as a power cut would."""
        self._process.kill()


def _run(arguments: Sequence[str], env: Mapping[str, str], out: Path, err: Path) -> None:
    # What was imported before the fork is not collected, and so stays shared.
    gc.freeze()
    for path, stream in ((out, sys.stdout), (err, sys.stderr)):
        with path.open("ab") as file:
            os.dup2(file.fileno(), stream.fileno())
    os.chdir(ROOT)
    os.environ.clear()
    os.environ.update(env)
    time.tzset()
    given = filter(None, env.get("PYTHONPATH", "").split(os.pathsep))
    sys.path[:] = [*given, *(path for path in sys.path if path not in ("", f"{ROOT}"))]
    sys.argv = ["holdfast", *arguments]
    sys.exit(main())
