"""A leash: run one server for as long as the process that holds the other end of standard input.

    python leash.py SIGNAL USER FOLDER COMMAND…

The holder keeps a pipe to this process. Each line it writes is the number of a signal to pass on to the server. When
the pipe closes, because the holder closed it or because the holder died, in whatever way, the server is sent SIGNAL,
and FOLDER is removed with all that is in it. When the server ends otherwise, the folder stays. USER, unless it is
empty, is whom the server runs as.

It needs nothing but the standard library, so that it starts in a few milliseconds.
"""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pwd import getpwnam
from typing import TypedDict

PATIENCE = 10.0
"""Seconds that a server may take to heed the last signal."""


def send(server: subprocess.Popen[bytes], number: int) -> None:
    """Send a signal to the server and what it started in its process group."""
    with suppress(ProcessLookupError):
        if server.poll() is None:
            os.killpg(server.pid, number)


def listen(server: subprocess.Popen[bytes], last_signal: int, let_go: threading.Event) -> None:
    """Pass signals on until the pipe closes, then end the server."""
    for line in sys.stdin:
        send(server, int(line))
    let_go.set()
    send(server, last_signal)
    time.sleep(PATIENCE)
    send(server, signal.SIGKILL)


class Identity(TypedDict, total=False):
    """Whom `subprocess` is to run a program as."""

    user: int
    group: int
    extra_groups: list[int]


def identity(user: str) -> Identity:
    """Say what runs a program as this user, who keeps none of the groups of the one who starts it; or as oneself."""
    if not user:
        return {}
    account = getpwnam(user)
    return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}


def main(last_signal: str, user: str, folder: str, *command: str) -> None:
    """Run the server to its end, and clean up after it when the holder has let go."""
    server = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        process_group=0,
        **identity(user),
    )
    let_go = threading.Event()
    threading.Thread(target=listen, args=(server, int(last_signal), let_go), daemon=True).start()
    server.wait()
    if let_go.is_set():
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
