"""What a workflow and its host say of idle instances, taken together."""

import math
from datetime import timedelta
from typing import Any

import pytest

from holdfast.processor.language.idle import IdlePolicy, Idling
from holdfast.schemas.settings import Settings

SECOND = timedelta(seconds=1)


@pytest.mark.parametrize(
    ("workflow", "host", "policy"),
    [
        ({}, {}, (0, 60)),
        ({}, {"time_to_persist": 5, "time_to_unload": 7}, (5, 7)),
        ({}, {"on_idle": "unload"}, (0, 0)),
        ({}, {"on_idle": "none"}, (math.inf, 60)),
        ({"time_to_persist": 2 * SECOND}, {"time_to_persist": 5}, (2, 60)),
        ({"time_to_unload": 9 * SECOND}, {"time_to_persist": 5}, (5, 9)),
        ({"on_idle": "unload"}, {"time_to_persist": 5}, (0, 0)),
        ({"on_idle": "none"}, {"time_to_persist": 5}, (math.inf, 60)),
        ({"on_idle": "persist"}, {"on_idle": "none"}, (0, 60)),
        ({"time_to_persist": 2 * SECOND}, {"on_idle": "none"}, (2, 60)),
        ({"time_to_unload": 9 * SECOND}, {"on_idle": "none"}, (math.inf, 9)),
        ({"time_to_unload": 9 * SECOND}, {"on_idle": "unload"}, (0, 9)),
    ],
)
def test_the_workflow_has_the_last_word(
    workflow: dict[str, Any], host: dict[str, Any], policy: tuple[float, float]
) -> None:
    assert Idling(**workflow).on(Settings(**host)) == IdlePolicy(*policy)


@pytest.mark.parametrize(
    ("policy", "defers"), [((0, 60), False), ((5, 60), True), ((math.inf, 60), True), ((math.inf, 0), False)]
)
def test_an_instance_idles_unpersisted_only_if_it_stays_in_memory(policy: tuple[float, float], *, defers: bool) -> None:
    assert IdlePolicy(*policy).defers is defers
