"""A server process that cannot outlive the process that started it; see `leash`."""

import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

LEASH = Path(__file__).with_name("leash.py")


class ServerError(Exception):
    """A private server cannot be had; the message says what to do, or ends with what the server logged."""


class Server:
    """A server on a leash, with a folder of its own that goes when it is closed.

    It can be stopped and started again in between, and finds its folder as it was.
    """

    def __init__(
        self, folder: Path, command: Sequence[str], *, environment: Mapping[str, str] | None = None, user: str = ""
    ) -> None:
        """Describe the server; nothing runs yet.

        `environment` replaces this process's own where it is given; `user` is whom the server runs as.
        """
        self.folder = folder
        self.log = folder / "log"
        self._command = command
        self._environment = environment
        self._user = user
        self._leash: subprocess.Popen[bytes] | None = None
        self._log_start = 0

    def start(self, ready: Callable[[], bool], *, last_signal: int, timeout: float) -> None:
        """Start the server and wait until `ready`; `last_signal` ends it when its folder is no longer needed.

        Raises ServerError when it ended before it was ready, or was not ready within `timeout` seconds.
        """
        self._log_start = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as log:
            leash = self._leash = subprocess.Popen(
                [sys.executable, "-I", "-S", LEASH, str(last_signal), self._user, self.folder, *self._command],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=self._environment,
                # Ctrl-C at the terminal is for the programs that use the server; it goes after them.
                start_new_session=True,
            )
        deadline = time.monotonic() + timeout
        while not ready():
            if leash.poll() is not None or time.monotonic() > deadline:
                raise ServerError(f"{self._command[0]} did not start:\n{self._tail()}")
            time.sleep(0.02)

    @property
    def is_running(self) -> bool:
        """Whether the server was started and has not ended since."""
        return self._leash is not None and self._leash.poll() is None

    def has_said(self, text: str) -> bool:
        """Tell whether the server has written this to its standard output or error since it was started last."""
        with self.log.open("rb") as log:
            log.seek(self._log_start)
            return text.encode() in log.read()

    def stop(self, number: int) -> None:
        """Send the server a signal that ends it, and wait until it has ended; its folder stays."""
        pipe = self._pipe()
        pipe.write(b"%d\n" % number)
        pipe.flush()
        self.wait()

    def wait(self, timeout: float = 60) -> None:
        """Wait, `timeout` seconds at most, until the server has ended; its folder stays."""
        if self._leash is not None:
            self._leash.wait(timeout)
            self._pipe().close()
            self._leash = None

    def close(self) -> None:
        """End the server, if it runs, and remove its folder."""
        if self._leash is not None:
            self._pipe().close()
            self._leash.wait()
            self._leash = None
        shutil.rmtree(self.folder, ignore_errors=True)

    def _pipe(self) -> IO[bytes]:
        if self._leash is None or self._leash.stdin is None:
            raise ServerError(f"{self._command[0]} is not running")
        return self._leash.stdin

    def _tail(self) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-20:])
