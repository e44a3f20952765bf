"""The front door: public names only, sorted, loaded when they are asked for."""

import ast
import subprocess
import sys

import pytest

import holdfast
from holdfast import testing
from holdfast.schemas import errors
from tests.architecture.house import ROOT


def test_the_names_are_sorted() -> None:
    assert holdfast.__all__ == sorted(holdfast.__all__)


def test_every_name_has_one_home() -> None:
    assert list(holdfast._HOMES) == holdfast.__all__


def test_type_checkers_are_told_the_same_homes() -> None:
    module = ast.parse((ROOT / "holdfast" / "__init__.py").read_text())
    told = next(node for node in module.body if isinstance(node, ast.If))
    homes = {
        (name.asname or name.name): node.module
        for node in told.body
        if isinstance(node, ast.ImportFrom)
        for name in node.names
    }
    assert homes == holdfast._HOMES


@pytest.mark.parametrize("name", holdfast.__all__)
def test_the_name_can_be_imported(name: str) -> None:
    value = getattr(holdfast, name)
    assert value is getattr(sys.modules[holdfast._HOMES[name]], name)
    assert name in dir(holdfast)


def test_every_error_that_a_caller_may_catch_is_public() -> None:
    raised = {name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, Exception)}
    assert raised <= {*holdfast.__all__}


def test_the_door_of_the_testing_kit_has_what_it_says() -> None:
    module = ast.parse((ROOT / "holdfast" / "testing.py").read_text())
    imported = {
        name.asname or name.name for node in module.body if isinstance(node, ast.ImportFrom) for name in node.names
    }
    assert imported == {*testing.__all__}
    assert testing.__all__ == sorted(testing.__all__)


def test_importing_holdfast_does_not_load_the_testing_kit() -> None:
    code = "import sys, holdfast; holdfast.App; print(*(name for name in sys.modules if 'testing' in name))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert [name for name in done.stdout.split() if name.startswith("holdfast")] == []


def test_another_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = holdfast.nonsense  # type: ignore[attr-defined]  # That it is not there is the point.


@pytest.mark.parametrize("part", ["schemas", "events", "projections"])
def test_importing_a_part_does_not_load_the_processor(part: str) -> None:
    code = f"import sys, holdfast.{part}; print(*(name for name in sys.modules if 'processor' in name))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_a_client_that_has_done_nothing_yet_has_loaded_nothing_of_what_acts() -> None:
    code = "import sys; from holdfast import Client; Client('postgresql:///any'); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    parts = ("events.types", "events.codec", "projections.instance", "schemas.message", "schemas.settings")
    acting = ("broker", "core", "engine.engine", "exporting", "language", "services")
    unneeded = {f"holdfast.{it}" for it in parts} | {f"holdfast.processor.{it}" for it in acting}
    assert unneeded & {*done.stdout.split()} == set()
