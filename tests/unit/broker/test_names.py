"""Names and numbers: what an app's queues are called, how waits grow."""

import pytest

from holdfast.processor.broker.backoff import Backoff
from holdfast.processor.broker.connection import Connection
from holdfast.processor.broker.topology import Topology
from holdfast.schemas.errors import AppError, SettingsError
from tests.support.broker import dice


def test_the_queues_of_the_partitions_sort_in_the_order_of_their_numbers() -> None:
    queues = Topology("shop", 100).queues
    assert (queues[0], queues[99]) == ("holdfast.shop.00", "holdfast.shop.99")
    assert list(queues) == sorted(queues)


@pytest.mark.parametrize("partitions", [0, 101])
def test_an_app_has_1_to_100_partitions(partitions: int) -> None:
    with pytest.raises(AppError, match="1 to 100"):
        Topology("shop", partitions)


def test_waits_grow_to_a_ceiling_and_begin_anew_after_a_success() -> None:
    backoff = Backoff(dice(1), first=1, ceiling=5)
    for span in (1, 2, 4, 5, 5):
        assert span / 2 <= backoff.wait() <= span
    backoff.reset()
    assert backoff.wait() <= 1


def test_those_who_fell_together_do_not_come_back_together() -> None:
    waits = {Backoff(dice(seed), first=1).wait() for seed in range(10)}
    assert len(waits) == 10


@pytest.mark.parametrize("url", ["", "localhost", "http://localhost/", "amqp://", "amqp://ann:secret/1@host/"])
async def test_a_url_that_cannot_be_read_is_refused_at_once_and_not_repeated(url: str) -> None:
    with pytest.raises(SettingsError, match="cannot be read: write amqp://") as caught:
        Connection(url, name="test", heartbeat=10, random=dice(1))
    assert "secret" not in str(caught.value)
