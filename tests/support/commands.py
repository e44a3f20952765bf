"""The command ``holdfast``, run to its end in a process of its own.

Hundreds of tests run commands, and most of what one costs is to import the product. So the processes are forked from
one that has done that and nothing else. What is to be killed, to be asked to end, or to write to a terminal is started
as a user starts it: ``tests.support.workers``.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from holdfast.processor.cli import main
from tests.support.workers import ROOT

_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload(
    [
        __name__,
        "aio_pika",
        "holdfast.processor.cli.output",
        "holdfast.processor.client",
        "holdfast.processor.process",
        "holdfast.processor.worker",
        "rich.table",
    ]
)


def holdfast(*arguments: str, env: Mapping[str, str], timeout: float = 60) -> subprocess.CompletedProcess[str]:
    """Run one ``holdfast`` command to its end, in the environment ``env`` and without input."""
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder, "out"), Path(folder, "err")
        process = _forks.Process(target=_run, args=(arguments, dict(env), out, err))
        process.start()
        process.join(timeout)
        if process.exitcode is None:
            process.kill()
            process.join()
            raise subprocess.TimeoutExpired(["holdfast", *arguments], timeout, out.read_text(), err.read_text())
        return subprocess.CompletedProcess(arguments, process.exitcode, out.read_text(), err.read_text())


def _run(arguments: Sequence[str], env: Mapping[str, str], out: Path, err: Path) -> None:
    for path, stream in ((out, sys.stdout), (err, sys.stderr)):
        with path.open("wb") as file:
            os.dup2(file.fileno(), stream.fileno())
    os.chdir(ROOT)
    os.environ.clear()
    os.environ.update(env)
    sys.argv = ["holdfast", *arguments]
    sys.exit(main())
