"""Where private servers have their folders: each one of its own, closed to other users."""

import os
import tempfile
from pathlib import Path

import psutil

MEMORY = Path("/dev/shm")  # noqa: S108  It is only a place for folders, which are made as safely as in any other.
ROOM = 8 << 30
"""How many bytes have to be free there: a server of each kind for each of several processes takes some gigabytes."""

below: Path | None = None
"""In what folder theirs are made; None is the system's for temporary files. Who runs servers may set it before."""


def new_folder(server: str) -> Path:
    """Make the folder of a server; `server` becomes a part of its name."""
    return Path(tempfile.mkdtemp(prefix=f"holdfast-{server}-", dir=below))


def memory() -> Path | None:
    """Return a folder that is in memory, where the system has one with room and programs may be run from it.

    Servers in it lose their data with the machine, but not with their processes, and wait for no disk.
    """
    try:
        found = os.statvfs(MEMORY)
    except OSError:
        return None
    room = min(found.f_bavail * found.f_frsize, psutil.virtual_memory().available)
    is_fit = room >= ROOM and not found.f_flag & os.ST_NOEXEC and os.access(MEMORY, os.W_OK)
    return MEMORY if is_fit else None
