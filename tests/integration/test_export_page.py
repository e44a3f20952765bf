"""The examples of ``docs/export.md``, run with the tools that they name on what was exported."""

import re
from pathlib import Path
from uuid import UUID

import pytest

from holdfast import Client
from holdfast.processor.exporting.parquet import EVENTS
from tests.support.commands import ROOT
from tests.support.exports import add_orders
from tests.support.mining import analyse
from tests.support.projections import rows

PAGE = (ROOT / "docs" / "export.md").read_text()
EXAMPLES = "\n".join(re.findall(r"^```py\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
FOUND = """
found = {
    "columns": [*events.columns],
    "versions": [int(it) for it in events["version"]],
    "zone": str(events["recorded_at"].dt.tz),
    "instances": sorted(instances["instance_id"]),
    "types": types,
    "keys": sorted(key for (key,) in keys),
    "cases": int(log["case:concept:name"].nunique()),
    "variants": len(variants),
}
"""


@pytest.fixture
async def orders(database_url: str) -> list[UUID]:
    return await add_orders(database_url)


@pytest.mark.timeout(1200)
async def test_the_examples_find_what_was_exported(orders: list[UUID], database_url: str, tmp_path: Path) -> None:
    async with Client(database_url) as client:
        await client.export.events(tmp_path / "log.parquet", "parquet")
        await client.export.instances(tmp_path / "instances.parquet", "parquet")
        await client.export.traces(tmp_path / "log.xes")
        keys = sorted(instance.correlation_key for instance in await client.instances())
    found = analyse(EXAMPLES + FOUND, tmp_path)
    log = rows(database_url, "select version from holdfast.events order by epoch, xid, position")
    assert found["versions"] == [version for (version,) in log]
    assert found["zone"] == "UTC"
    assert {"cursor", "instance_id", "type", "data"} <= {*found["columns"]}
    assert found["instances"] == sorted(map(str, orders[:3]))
    counts = rows(database_url, 'select type, count(*) from holdfast.events group by type order by type collate "C"')
    assert [tuple(it) for it in found["types"]] == counts
    assert {*keys, "order-1"} == {*found["keys"]}
    assert (found["cases"], found["variants"]) == (4, 3)


def test_every_column_of_a_row_is_on_the_page() -> None:
    table = PAGE[PAGE.index("| `cursor` |") : PAGE.index("With `--instances`, one row")].strip()
    named = {name for line in table.splitlines() for name in re.findall(r"`(\w+)`", line.split("|")[1])}
    assert named == {*EVENTS}
