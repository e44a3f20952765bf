"""Run a command with private servers, or only the servers.

    python -m compose.local [-- COMMAND…]

The command finds the servers' addresses in HOLDFAST_DATABASE_URL and HOLDFAST_AMQP_URL; its exit status becomes that of
this program. Without a command the addresses are printed, and the servers run until Ctrl-C.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

from compose.local.process import ServerError
from compose.local.services import running_services

PATIENCE = 30
"""Seconds that a command may take to end in order."""
ENDING = (signal.SIGTERM, signal.SIGHUP)


def main() -> int:
    """Give the exit status of the command."""
    command = sys.argv[2:] if sys.argv[1:2] == ["--"] else []
    if not command and sys.argv[1:]:
        print(__doc__, file=sys.stderr)
        return 2
    _on_ending(_leave)
    try:
        with running_services() as services:
            addresses = {"HOLDFAST_DATABASE_URL": services.database_url, "HOLDFAST_AMQP_URL": services.amqp_url}
            if command:
                return _run(command, addresses)
            for name, value in addresses.items():
                print(f"export {name}='{value}'")
            print("# The servers run until Ctrl-C.", flush=True)
            signal.pause()
    except ServerError as error:
        print(f"{error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    return 0


def _run(command: list[str], addresses: dict[str, str]) -> int:
    # A signal that comes while the command is being started waits until there is a command to be ended.
    early: list[int] = []
    _on_ending(lambda number, _: early.append(number))
    with subprocess.Popen(command, env=os.environ | addresses) as process:
        try:
            _on_ending(_leave)
            if early:
                _leave(early[0], None)
            return process.wait()
        except BaseException as reason:
            # Ctrl-C reaches the command by itself.
            if not isinstance(reason, KeyboardInterrupt):
                process.terminate()
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
            raise


def _on_ending(handler: Callable[[int, FrameType | None], object]) -> None:
    for number in ENDING:
        signal.signal(number, handler)


def _leave(number: int, _frame: FrameType | None) -> NoReturn:
    sys.exit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
