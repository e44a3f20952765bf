"""What the documentation shows is so: its code loads, its links lead somewhere, what it names exists."""

import ast
import importlib.util
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
from typer.core import TyperGroup
from typer.main import get_command

from holdfast import App
from holdfast.processor.cli import application
from holdfast.schemas.settings import Settings
from tests.architecture.house import PARTS, ROOT, python_files

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md")])
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
FILE = re.compile(r"`((?:[\w.-]+/)+[\w-]+\.(?:py|sql|md|json|toml))`")
COMMAND = re.compile(r"\bholdfast ([a-z]+(?:-[a-z]+)?)(?: (list|show|requeue|drop|remove)\b)?")
Load = Callable[[str, str], ModuleType]
COMPOSE = sorted((ROOT / "compose").glob("*.yml"))
SETTING = re.compile(r"\bHOLDFAST_([A-Z_]+)\b")


def blocks(page: Path, language: str) -> list[str]:
    return [text for kind, text in BLOCK.findall(page.read_text()) if kind == language]


def name_of(page: object) -> str:
    return str(page.relative_to(ROOT)) if isinstance(page, Path) else ""


every_page = pytest.mark.parametrize("page", PAGES, ids=name_of)


@pytest.fixture
def load(tmp_path: Path) -> Iterator[Load]:
    """Load Python text as a module of its own, from a file, where the compiler of workflows finds it."""
    loaded = []

    def load(name: str, text: str) -> ModuleType:
        file = tmp_path / f"{name}.py"
        file.write_text(text)
        specification = importlib.util.spec_from_file_location(name, file)
        assert specification is not None
        assert specification.loader is not None
        module = importlib.util.module_from_spec(specification)
        sys.modules[name] = module
        loaded.append(name)
        specification.loader.exec_module(module)
        return module

    yield load
    for name in loaded:
        del sys.modules[name]


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")], ids=name_of)
def test_the_python_blocks_of_a_page_are_a_module_that_loads(page: Path, load: Load) -> None:
    module = load(f"page_{page.stem.lower()}", "\n".join(blocks(page, "python")))
    for value in list(vars(module).values()):
        if isinstance(value, App):
            value.check()


def test_the_example_of_the_readme_is_the_example() -> None:
    (shown,) = blocks(ROOT / "README.md", "python")
    assert shown == (ROOT / "examples" / "orders" / "app.py").read_text()


@every_page
def test_links_lead_to_a_file_and_a_heading(page: Path) -> None:
    broken = []
    for link in LINK.findall(page.read_text()):
        path, _, anchor = link.partition("#")
        if "://" in link:
            continue
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


def anchors(page: Path) -> set[str]:
    """Give the anchors of a page's headings, as GitHub makes them."""
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in HEADING.findall(page.read_text())}


@every_page
def test_files_that_are_named_exist(page: Path) -> None:
    assert [file for file in FILE.findall(page.read_text()) if not (ROOT / file).exists()] == []


def test_the_glossary_leads_to_code_that_has_the_word() -> None:
    lost = []
    for _, _, code, _ in glossary():
        names = re.findall(r"`([A-Za-z_.]+)`", FILE.sub("", code))
        texts = [(ROOT / file).read_text() for file in FILE.findall(code)]
        lost += [name for name in names if not any(part_of(name, text) for text in texts)]
    assert lost == []


def part_of(name: str, text: str) -> bool:
    """Tell whether a dotted name is one of a file's: its last part stands there as a word."""
    return re.search(rf"\b{name.rpartition('.')[2]}\b", text) is not None


def test_the_glossary_leads_to_tables_and_columns_that_exist() -> None:
    schema = "".join(file.read_text() for file in sorted((ROOT / "schemas" / "postgres" / "ddl").glob("*.sql")))
    relations = {*re.findall(r"create (?:table|view) holdfast\.(\w+)", schema)}
    named = {name for _, _, _, sql in glossary() for name in re.findall(r"`([\w.]+)`", sql)}
    assert {name.partition(".")[0] for name in named} - relations == {"app", "correlation_key"}
    assert [name for name in named if not part_of(name, schema)] == []


def glossary() -> list[list[str]]:
    """Give the rows of the glossary: word, meaning, code, SQL."""
    rows = re.findall(r"^\| (.+)\|$", (ROOT / "GLOSSARY.md").read_text(), re.MULTILINE)
    return [[cell.strip() for cell in row.split("|")] for row in rows[1:]]


@every_page
def test_commands_that_are_shown_exist(page: Path) -> None:
    group = get_command(application.app)
    assert isinstance(group, TyperGroup)
    shown = [match for code in code_of(page) for match in COMMAND.findall(code)]
    assert {name for name, _ in shown} <= {*group.commands}
    for title in ("dead-letters", "nonpersisted"):
        inner = group.commands[title]
        assert isinstance(inner, TyperGroup)
        assert {name for of, name in shown if of == title and name} <= {*inner.commands}


def code_of(page: Path) -> Iterator[str]:
    """Give what is set as code on a page: indented or fenced lines, and spans."""
    text = page.read_text()
    yield from re.findall(r"^    (?:\$ )?(holdfast .*)$", text, re.MULTILINE)
    yield from re.findall(r"`(holdfast [^`]*)`", text)


@every_page
def test_settings_that_are_named_exist(page: Path) -> None:
    named = {name.lower() for name in SETTING.findall(page.read_text())}
    composed = {name.lower() for file in COMPOSE for name in SETTING.findall(file.read_text())}
    assert named <= {*Settings.model_fields, "env_file", "permits_csv", *composed}


def test_every_reason_of_a_dead_letter_has_its_mend() -> None:
    rows = re.findall(r"^\| (`.+?) \|", (ROOT / "docs" / "messages.md").read_text(), re.MULTILINE)
    documented = {reason for row in rows for reason in re.findall(r"`(\w+)`", row)}
    assert reasons() - documented == set()


def reasons() -> set[str]:
    """Give the reasons that the code can give a dead letter."""
    found = {f"{how}_{what}" for how in ("missing", "invalid") for what in ("message_id", "type", "correlation")}
    for file in python_files(*PARTS):
        for node in ast.walk(ast.parse(file.read_text())):
            match node:
                case ast.Call(func=ast.Name(id="InvalidMessage"), args=[ast.Constant(value=str(reason)), *_]):
                    found.add(reason)
                case ast.Call(
                    func=ast.Attribute(attr="_dead_letter" | "_keep"), args=[_, ast.Constant(value=str(reason)), *_]
                ):
                    found.add(reason)
    return found - {"rejected", "buffered"}
