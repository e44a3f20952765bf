"""The example of the page on projections, run."""

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from holdfast.schemas.settings import Settings
from tests.architecture.house import ROOT
from tests.support.hosts import running_host
from tests.support.projections import catch_up, rows

PAGE = ROOT / "docs" / "projections.md"


@pytest.fixture
def bakery(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    (block,) = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    file = tmp_path / "bakery.py"
    file.write_text(block)
    specification = importlib.util.spec_from_file_location("bakery", file)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    monkeypatch.setitem(sys.modules, "bakery", module)
    specification.loader.exec_module(module)
    module.app.check()
    return module


async def test_sales_are_counted(bakery: ModuleType, database_url: str) -> None:
    async with running_host(bakery.app, database_url, Settings()) as host:
        for number, item in enumerate(["bread", "cake", "bread", "roll"]):
            await host.deliver(bakery.Ordered(order_id=str(number), item=item))
        await host.tell(bakery.Baked(order_id="0"))
        await host.tell(bakery.Baked(order_id="1"))
    await catch_up(database_url, bakery.app)
    assert rows(database_url, "select * from bakery_sales.items order by item") == [
        ("bread", 2, 1),
        ("cake", 1, 1),
        ("roll", 1, 0),
    ]
    assert rows(database_url, "select * from bakery_sales.open_items where open > 0 order by item") == [
        ("bread", 1),
        ("roll", 1),
    ]
