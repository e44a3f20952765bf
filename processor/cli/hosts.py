"""``holdfast hosts``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast.processor.cli.options import AppName, DatabaseUrl, JsonLines, open_client, run

if TYPE_CHECKING:
    from holdfast.projections.hosts import HostStatus


def hosts(
    *,
    app: AppName = None,
    database_url: DatabaseUrl = None,
    as_json: JsonLines = False,
) -> None:
    """List the workers: where each runs, which partitions it consumes and how many instances it holds.

    A worker that ended without a word is listed as dead until others have taken over its instances, and for an hour. A
    client that holds an instance is listed too: it consumes no partition.

        holdfast hosts --app orders

    With --json one line for each worker, with the moments since which it consumes its partitions.
    """

    async def work() -> None:
        async with open_client(database_url, app) as client:
            found = await client.hosts()
        _print(found, as_json=as_json)

    run(work())


def _print(found: list[HostStatus], *, as_json: bool) -> None:
    from holdfast.processor.cli.output import emit, lately, table

    if as_json:
        for host in found:
            emit(host)
        return
    table(
        ["host", "app", "machine", "process", "started", "lease until", "partitions", "locks"],
        [
            (
                h.host_id,
                h.app,
                h.machine,
                h.process_id,
                lately(h.started_at),
                lately(h.lease_expiration) if h.is_alive else f"dead since {lately(h.lease_expiration)}",
                " ".join(f"{number:02}" for number in h.partitions) if h.is_alive else None,
                h.locks,
            )
            for h in found
        ],
    )
