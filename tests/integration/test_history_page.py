"""What docs/history.md shows is what comes out: its app runs, and its commands print what it says."""

import asyncio
import importlib.util
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from holdfast import Client
from holdfast.schemas.settings import Settings
from tests.support.commands import holdfast
from tests.support.hosts import running_host
from tests.support.projections import catch_up
from tests.support.workers import environment

PAGE = (Path(__file__).parents[2] / "docs" / "history.md").read_text(encoding="utf-8")
SHOWN = re.findall(r"^```text\n\$ holdfast (.+)\n((?:.*\n)*?)```$", PAGE, re.MULTILINE)
INSTANCE = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
CURSOR = re.compile(r"1-\d+-\d+")


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[ModuleType]:
    (code,) = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    file = tmp_path / "shop.py"
    file.write_text(code)
    specification = importlib.util.spec_from_file_location("shop", file)
    assert specification is not None
    assert specification.loader is not None
    module = sys.modules["shop"] = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    yield module
    del sys.modules["shop"]


def masked(text: str) -> list[str]:
    """Give the lines without what is different each time."""
    text = INSTANCE.sub("ID", text)
    text = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d+)?", "TIME", text)
    return CURSOR.sub("CURSOR", re.sub(r"transaction \d+", "transaction XID", text)).splitlines()


def test_the_commands_of_the_page_print_what_it_shows(database_url: str, shop: ModuleType, tmp_path: Path) -> None:
    async def live() -> tuple[str, str]:
        async with running_host(shop.app, database_url, Settings()) as host, Client(database_url, app="shop") as client:
            lines = [shop.Line("chair", 1), shop.Line("table", 2)]
            instance = await host.deliver(shop.Ordered(key="A-7", lines=lines))
            cursor = await client.projections.cursor()
            await host.hear(shop.Amended(key="A-7", place=1, amount=5).envelope("amended"))
        await catch_up(database_url, shop.app)
        return str(instance), cursor

    instance, cursor = asyncio.run(live())
    env = environment(database_url, "") | {"PYTHONPATH": str(tmp_path)}
    assert [command.split()[0] for command, _ in SHOWN] == ["history", "state", "diff", "projections", "projections"]
    for command, shown in SHOWN:
        done = holdfast(*CURSOR.sub(cursor, INSTANCE.sub(instance, command)).split(), env=env)
        assert masked(done.stdout) == masked(shown), done.stdout + done.stderr
        assert done.returncode == ("diff" in command)
