"""Where a server comes from that no wheel carries: installed here, installed now, or run with Docker."""

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from compose.local import containers
from compose.local.process import ServerError
from compose.local.rabbitmq import RabbitMQ, find_server
from compose.local.server import Broker

HELP = """\
RabbitMQ 3.10 or newer is needed, and none was found. Any one of these helps:
  - install it (Debian and Ubuntu: apt-get install rabbitmq-server; macOS: brew install rabbitmq)
  - start Docker
  - set HOLDFAST_AMQP_URL to the address of one that runs, for instance amqp://guest:guest@localhost/"""


def provide_rabbitmq() -> Broker:
    """Give a node, not yet started, from the first source that has one.

    Raises ServerError, saying what to install, when there is none.
    """
    with taking_turns():
        script = find_server()
        if script is None and install("rabbitmq-server"):
            script = find_server()
    if script is not None:
        return RabbitMQ(script)
    if containers.why_not() is None:
        return containers.ContainedRabbitMQ(containers.images()[1])
    raise ServerError(HELP)


@contextmanager
def taking_turns() -> Iterator[None]:
    """Keep other processes from installing at the same time, and from finding what is half installed."""
    with Path(__file__).open() as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        yield


def install(package: str) -> bool:
    """Install a package of Debian or Ubuntu, where that is possible without asking for a password.

    The package may start a server for the whole system; that is not touched.
    """
    if shutil.which("apt-get") is None:
        return False
    become_root = [] if os.geteuid() == 0 else ["sudo", "--non-interactive"]
    if become_root and (shutil.which("sudo") is None or subprocess.run([*become_root, "true"], check=False).returncode):
        return False
    print(f"Installing what is missing (apt-get install {package})…", file=sys.stderr, flush=True)
    apt_get = [*become_root, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "--quiet", "--quiet"]
    wait = ["--option", "DPkg::Lock::Timeout=600"]
    for arguments in (["update"], ["install", "--yes", "--no-install-recommends", *wait, package]):
        done = subprocess.run(
            [*apt_get, *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
        if done.returncode:
            print(done.stderr, file=sys.stderr)
            return False
    return True
