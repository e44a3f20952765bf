"""``holdfast verify``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import typer

from holdfast.processor.cli.options import AppName, DatabaseUrl, JsonDocument, open_client, run

if TYPE_CHECKING:
    from holdfast.projections.verify import Checked


def verify(
    instance_id: Annotated[
        UUID | None, typer.Argument(help="Only this instance.", metavar="INSTANCE", show_default=False)
    ] = None,
    *,
    app: AppName = None,
    database_url: DatabaseUrl = None,
    as_json: JsonDocument = False,
) -> None:
    """Compute every instance anew from its events, and compare the result with the instance store.

    Workers may run meanwhile. Instances that are not persisted yet have no events and are passed over.
    The exit code is 1 if anything differs.

        holdfast verify --app orders

    With --json one document: "instances" and "events" that were checked, and under "different" each
    instance with its "differences" (what, stored, folded).
    """

    async def work() -> bool:
        instances = events = 0
        different: list[Checked] = []
        async with open_client(database_url, app) as client:
            async for checked in client.verify(instance_id):
                instances += 1
                events += checked.events
                if checked.differences:
                    different.append(checked)
        _print(instances, events, different, as_json=as_json)
        return bool(different)

    if run(work()):
        raise typer.Exit(1)


def _print(instances: int, events: int, different: list[Checked], *, as_json: bool) -> None:
    from holdfast.processor.cli.output import emit, say

    if as_json:
        emit({"instances": instances, "events": events, "different": [_document(checked) for checked in different]})
        return
    for checked in different:
        say(f"instance {checked.instance_id} differs:", style="bold red")
        for difference in checked.differences:
            say(f"  {difference.what}: stored {difference.stored!r}, but the events say {difference.folded!r}")
    verdict = f"{len(different)} differ" if different else "no difference"
    say(f"checked {instances} instances, {events} events: {verdict}")


def _document(checked: Checked) -> dict[str, Any]:
    return {
        "instance_id": checked.instance_id,
        "events": checked.events,
        "differences": [
            {"what": d.what, "stored": _plain(d.stored), "folded": _plain(d.folded)} for d in checked.differences
        ],
    }


def _plain(value: object) -> object:
    """Return something that JSON can hold."""
    return value if value is None or isinstance(value, bool | int | str) else repr(value)
