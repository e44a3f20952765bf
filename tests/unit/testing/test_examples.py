"""Each of the example workflows does what its scenario says, and comes out the same wherever its host dies."""

import ast
import inspect
import re
from importlib import import_module
from types import ModuleType

import pytest

import holdfast
from holdfast import App
from holdfast.testing import Simulation, crash_prover
from tests.architecture.house import ROOT

FOLDER = ROOT / "examples" / "workflows"
NOT_AWAITED = {"activity_context", "heartbeat", "log_context"}
NAMED = re.compile(r"(\w+)=")
EXAMPLES = sorted(file.stem for file in FOLDER.glob("*.py") if file.name != "__init__.py")


@pytest.fixture(params=EXAMPLES)
def example(request: pytest.FixtureRequest) -> ModuleType:
    return import_module(f"examples.workflows.{request.param}")


async def test_its_scenario_holds(example: ModuleType) -> None:
    async with Simulation(example.app) as world:
        await example.scenario(world)


async def test_it_comes_out_the_same_wherever_its_host_dies(example: ModuleType) -> None:
    await crash_prover(example.app, example.scenario)


def test_between_them_they_use_everything_that_may_be_awaited() -> None:
    texts = [(FOLDER / f"{name}.py").read_text() for name in EXAMPLES]
    called = {
        getattr(node.func, "attr", getattr(node.func, "id", ""))
        for text in texts
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Call)
    }
    decorators = {"routine"} if any("@routine" in text for text in texts) else set()
    public = {name for name in holdfast.__all__ if name.islower()}
    assert public - called - decorators <= NOT_AWAITED
    assert {"undo", "confirm", "cancel"} <= called


def test_between_them_they_use_every_option_of_an_activity() -> None:
    texts = [(FOLDER / f"{name}.py").read_text() for name in EXAMPLES]
    given = {
        name for text in texts for call in re.findall(r"@app\.activity\((.*)\)", text) for name in NAMED.findall(call)
    }
    options = set(inspect.signature(App.activity).parameters) - {"self", "function", "name", "heartbeat"}
    assert options <= given


def test_the_index_names_every_example() -> None:
    assert sorted(re.findall(r"^\| \[`(\w+)\.py`\]", (FOLDER / "README.md").read_text(), re.MULTILINE)) == EXAMPLES
