"""Why a message is dead, as the broker's headers tell."""

import pytest
from pamqp import encode
from pamqp.common import FieldTable

from holdfast.processor.broker.dead import Death, read_death
from holdfast.processor.broker.frames import Properties

POISON: FieldTable = {"reason": "delivery_limit", "queue": "holdfast.shop.00", "count": 2}


@pytest.mark.parametrize(
    ("headers", "death"),
    [
        ({"x-death": [POISON, {"reason": "rejected"}]}, Death("delivery_limit", "holdfast.shop.00", 2)),
        ({"x-death": [{"reason": 7, "queue": 7, "count": "many"}]}, Death("unknown")),
        ({"x-death": []}, Death("unknown")),
        ({"x-death": "what"}, Death("unknown")),
        ({"x-death": ["what"]}, Death("unknown")),
        ({}, Death("unknown")),
    ],
)
def test_the_last_death_counts(headers: FieldTable, death: Death) -> None:
    assert read_death(Properties(table=encode.field_table(headers))) == death
