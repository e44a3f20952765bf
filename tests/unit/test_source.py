"""The text of source lines is shown only while it is the text that was compiled."""

import importlib.util
import sys
from pathlib import Path

import pytest

from holdfast.events.types import Where
from holdfast.processor.language.compiler import compile_workflow
from holdfast.processor.language.program import Program
from holdfast.processor.source import Source
from holdfast.projections.history import SourceLine

TEXT = """\
import asyncio

async def follow(case):
    step = 1
    return (
        step
    )
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "loaded_source.py"
    path.write_text(TEXT)
    return path


@pytest.fixture
def program(file: Path, monkeypatch: pytest.MonkeyPatch) -> Program:
    return loaded(file, monkeypatch)


def loaded(path: Path, monkeypatch: pytest.MonkeyPatch) -> Program:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, path.stem, module)
    spec.loader.exec_module(module)
    return compile_workflow(module.follow, name="follow")


def test_a_line_is_given_without_its_indentation(program: Program) -> None:
    source = Source(program)
    assert source.line(4) == "step = 1"
    assert source.place(4) == "line 4: step = 1"


def test_a_line_that_is_not_there_is_only_its_number(program: Program) -> None:
    assert Source(program).place(99) == "line 99"
    assert Source(program).line(0) is None
    assert Source(program).place(None) == ""


def test_no_text_is_given_once_the_function_has_moved(program: Program, file: Path) -> None:
    file.write_text("import json\n" + TEXT)
    assert Source(program).place(4) == "line 4"


@pytest.mark.parametrize("text", ["", "async def follow(:\n", "\0"])
def test_no_text_is_given_of_a_file_that_is_something_else(program: Program, file: Path, text: str) -> None:
    file.write_text(text)
    assert Source(program).line(4) is None


def test_no_text_is_given_where_the_file_is_not(program: Program, file: Path) -> None:
    file.unlink()
    assert Source(program).place(4) == "line 4"


WAITING = """\
from holdfast import first_of, receive, routine, Message

class Paid(Message, correlation="key"):
    key: str

@routine
async def wait(key):
    await receive(Paid, key)

async def follow(case):
    outcome = await first_of(
        again=wait(await receive(Paid, "a")),
        paid=receive(Paid, case.key),
    )
    return outcome
"""


def test_without_the_file_an_await_is_shown_as_the_program_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "waiting_source.py"
    path.write_text(WAITING)
    program = loaded(path, monkeypatch)
    steps = [number for number, step in enumerate(program.steps) if step["op"] == "await"]
    assert Source(program).at(Where("0", steps[1], 11)) == SourceLine(str(path), 11, "outcome = await first_of(")
    path.unlink()
    shown = [Source(program).at(Where("0", step, 11)) for step in steps]
    assert [line.text for line in shown] == [
        "await receive(Paid, 'a')",
        "await first_of(again=wait(…), paid=receive(Paid, case.key))",
    ]
    assert all(line.is_stored for line in shown)
    assert Source(program).at(Where("0", len(program.steps), 3)) == SourceLine(str(path), 3, None)


def test_a_program_that_is_not_stored_has_no_source() -> None:
    assert Source(None).file == ""
    assert Source(None).place(4) == "line 4"


@pytest.mark.parametrize(
    ("name", "shown"), [("0.3", True), ("0.3/late:timeout", True), ("0.3.1", False), ("0.3-1.1", False)]
)
def test_only_bookmarks_of_the_workflow_are_shown_with_its_lines(program: Program, name: str, *, shown: bool) -> None:
    assert Source(program).of_bookmark(name).place(4) == ("line 4: step = 1" if shown else "line 4")
