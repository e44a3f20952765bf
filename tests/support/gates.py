"""An app whose projection waits at a gate within each page, and processes that run it, as a user runs them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from tests.support.workers import environment

MODULE = """
from collections.abc import Sequence
from holdfast import App, Projection, Transaction
from holdfast.events.types import InstanceStarted

app = App("shop")


@app.projection
class Started(Projection):
    create = "create table started (workflow text)"
    page = 50

    async def started(self, tx: Transaction, events: Sequence[InstanceStarted]) -> None:
        await tx.execute("insert into started select unnest(%s::text[])", [[e.workflow for e in events]])
        await tx.execute("select pg_advisory_xact_lock_shared(4711)")
"""
COUNT = "select count(*)::int from shop_started.started"


def gated(url: str, folder: Path, name: str = "holdfast") -> dict[str, str]:
    """Return the environment of commands for the app, whose connections have a name."""
    (folder / "shop.py").write_text(MODULE)
    named = f"{url}{'&' if '?' in url else '?'}application_name={name}"
    return environment(named, "") | {"PYTHONPATH": str(folder)}


@contextmanager
def closed_gate(url: str) -> Iterator[None]:
    """Let no process through: whoever has written the rows of a page waits before it moves the checkpoint."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("select pg_advisory_lock(4711)")
        yield


def at_gate(url: str) -> list[str]:
    """Return the names of those that wait."""
    with psycopg.connect(url) as connection:
        return [
            name
            for (name,) in connection.execute(
                "select a.application_name from pg_locks l join pg_stat_activity a using (pid)"
                " where l.locktype = 'advisory' and l.objid = 4711 and not l.granted"
            ).fetchall()
        ]


def plain(text: str) -> str:
    """Return what a terminal was sent without what moves its cursor and colours it."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
