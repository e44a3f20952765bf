"""Each of the example workflows does what its scenario says, and comes out the same wherever its host dies."""

from importlib import import_module
from types import ModuleType

import pytest

from holdfast.testing import Simulation, crash_prover
from tests.architecture.house import ROOT

EXAMPLES = sorted(file.stem for file in (ROOT / "examples" / "workflows").glob("*.py") if file.name != "__init__.py")


@pytest.fixture(params=EXAMPLES)
def example(request: pytest.FixtureRequest) -> ModuleType:
    return import_module(f"examples.workflows.{request.param}")


async def test_its_scenario_holds(example: ModuleType) -> None:
    async with Simulation(example.app) as world:
        await example.scenario(world)


async def test_it_comes_out_the_same_wherever_its_host_dies(example: ModuleType) -> None:
    await crash_prover(example.app, example.scenario)
