"""Finding the user's app, and saying what is wrong with it."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from holdfast.processor.cli.load_app import load_app
from holdfast.schemas.errors import AppError, CompileError

GOOD = """
from holdfast import App, Message

class Asked(Message, correlation="key"):
    key: str

app = App("asked")
nothing = 3

@app.workflow(start=Asked)
async def answer(asked: Asked) -> str:
    return asked.key
"""

Write = Callable[[str, str], None]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    before = set(sys.modules)

    def write(name: str, text: str) -> None:
        (tmp_path / name).write_text(text)

    yield write
    for name in set(sys.modules) - before:
        if name.startswith("loaded_"):
            del sys.modules[name]


def problem(spec: str) -> str:
    with pytest.raises(AppError) as caught:
        load_app(spec)
    return str(caught.value)


def test_an_app_is_found_from_the_current_directory(write: Write) -> None:
    write("loaded_good.py", GOOD)
    assert load_app("loaded_good:app").name == "asked"


def test_an_app_may_be_an_attribute_of_something(write: Write) -> None:
    write("loaded_nested.py", GOOD + "\nclass shop:\n    workflows = app\n")
    assert load_app("loaded_nested:shop.workflows").name == "asked"


@pytest.mark.parametrize("spec", ["loaded_good", "loaded_good:", ":app", ""])
def test_how_an_app_is_named_is_explained(spec: str) -> None:
    assert "write module:attribute" in problem(spec)


def test_a_module_that_is_not_there_is_named_with_the_place(write: Write, tmp_path: Path) -> None:
    assert problem("loaded_absent.part:app") == (
        f"there is no module 'loaded_absent.part', neither in {tmp_path} nor installed"
    )


def test_a_module_that_the_users_module_lacks_is_told_apart(write: Write) -> None:
    write("loaded_lacking.py", "import os\nimport nowhere_to_be_found\n")
    said = problem("loaded_lacking:app")
    assert "loaded_lacking.py:2: module loaded_lacking needs 'nowhere_to_be_found'" in said


def test_a_missing_attribute_is_answered_with_the_apps_that_there_are(write: Write) -> None:
    write("loaded_good.py", GOOD)
    assert problem("loaded_good:application") == "module loaded_good has no 'application'; it has the app app"


def test_what_is_no_app_is_refused(write: Write) -> None:
    write("loaded_good.py", GOOD)
    assert problem("loaded_good:nothing") == "loaded_good:nothing is no holdfast.App but a int; it has the app app"


def test_a_syntax_error_has_its_place(write: Write, tmp_path: Path) -> None:
    write("loaded_broken.py", "x = 1\ny = (\n")
    assert problem("loaded_broken:app").startswith(f"{tmp_path / 'loaded_broken.py'}:2: ")


def test_an_error_on_import_has_its_place_and_its_cause(write: Write) -> None:
    write("loaded_failing.py", "import json\n\ndef load():\n    return json.loads('{')\n\nload()\n")
    with pytest.raises(AppError, match=r"module loaded_failing cannot be imported: json\S*JSONDecodeError: ") as caught:
        load_app("loaded_failing:app")
    assert type(caught.value.__cause__).__name__ == "JSONDecodeError"


def test_a_workflow_that_does_not_compile_says_where_and_what_to_do(write: Write, tmp_path: Path) -> None:
    write("loaded_uncompiled.py", GOOD.replace("    return asked.key", "    yield asked.key"))
    with pytest.raises(CompileError) as caught:
        load_app("loaded_uncompiled:app")
    assert caught.value.file == str(tmp_path / "loaded_uncompiled.py")
    assert caught.value.line == 10
    assert caught.value.mend


def test_an_app_that_does_not_hang_together_is_refused(write: Write) -> None:
    write("loaded_loose.py", GOOD.replace("return asked.key", "return missing(asked.key)"))
    assert "uses missing, which loaded_loose does not define" in problem("loaded_loose:app")
