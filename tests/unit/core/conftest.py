"""How the tests of compensation run their workflows."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.unit.core.compensations import Drive, Run, drive


@pytest.fixture(params=[False, True], ids=["in memory", "reloaded"])
def drives(request: pytest.FixtureRequest) -> Drive:
    """Run a workflow in memory, or stored and restored around every answer."""

    def driven(function: Callable[..., Any], **options: Any) -> Run:
        run = drive(function, reload=request.param, **options)
        assert len(set(run.places)) == len(run.places), "no place is used twice"
        return run

    return driven
