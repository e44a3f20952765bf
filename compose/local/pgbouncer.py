"""A private PgBouncer in front of a database: it pools connections by the transaction.

It listens on a socket in its folder and on no network, and lets in whoever reaches that. A connection to the server
serves for a second at most, so that two transactions of one client rarely have the same.
"""

import os
import shutil
import signal
from functools import partial
from urllib.parse import quote

from psycopg.conninfo import conninfo_to_dict

from compose.local.place import new_folder
from compose.local.postgres import takes_connections
from compose.local.process import Server, ServerError
from compose.local.provide import install, taking_turns

SETTINGS = """\
[databases]
* = {target}

[pgbouncer]
unix_socket_dir = {folder}
listen_port = {port}
auth_type = any
pool_mode = transaction
default_pool_size = 30
max_client_conn = 200
server_lifetime = 1
"""
PORT = 6432
"""Names the socket."""
HELP = "PgBouncer is needed, and was not found: install it (Debian and Ubuntu: apt-get install pgbouncer)"


class PgBouncer:
    """One pooler; `url` leads through it to the database of the address that it was given."""

    def __init__(self, database_url: str) -> None:
        with taking_turns():
            program = _find()
            if program is None and install("pgbouncer"):
                program = _find()
        if program is None:
            raise ServerError(HELP)
        folder = new_folder("pgbouncer")
        given = conninfo_to_dict(database_url)
        self.url = f"postgresql://{quote(str(given.get('user', '')))}@/{given['dbname']}?host={folder}&port={PORT}"
        passed = {name: value for name, value in given.items() if name in ("host", "port", "user", "password")}
        target = " ".join(f"{name}='{value}'" for name, value in passed.items())
        settings = folder / "pgbouncer.ini"
        settings.write_text(SETTINGS.format(target=target, folder=folder, port=PORT))
        # It refuses to serve root.
        user = "nobody" if os.geteuid() == 0 else ""
        if user:
            shutil.chown(folder, user)
            shutil.chown(settings, user)
        self._server = Server(folder, [program, f"{settings}"], user=user)

    def start(self) -> None:
        self._server.start(partial(takes_connections, self.url), last_signal=signal.SIGINT, timeout=30)

    def kill(self) -> None:
        """End it at once, with every connection that it holds."""
        self._server.stop(signal.SIGKILL)

    def close(self) -> None:
        self._server.close()


def _find() -> str | None:
    # Debian puts it where only root looks.
    return shutil.which("pgbouncer", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")
