"""How the partitions are shared among the hosts that live."""

from collections import Counter
from random import Random
from uuid import UUID

import pytest

from holdfast.processor.core.sharing import share_of, share_out


def some_hosts(count: int, seed: int = 1) -> list[UUID]:
    random = Random(seed)  # noqa: S311  They are to be any hosts, but the same ones each time.
    return [UUID(int=random.getrandbits(128)) for _ in range(count)]


def test_four_hosts_have_two_of_eight_partitions_each() -> None:
    for seed in range(50):
        owners = share_out(some_hosts(4, seed), 8)
        assert sorted(owners) == list(range(8))
        assert set(Counter(owners.values()).values()) == {2}


def test_nobody_owns_a_partition_where_nobody_lives() -> None:
    assert share_out([], 8) == {}


def test_it_does_not_matter_in_which_order_the_hosts_are_seen() -> None:
    hosts = some_hosts(5)
    assert share_out(hosts, 16) == share_out(hosts[::-1], 16)


def test_the_sharing_is_the_same_for_every_version_of_the_program() -> None:
    # Hosts of two versions share the partitions while a deployment rolls.
    hosts = [UUID(int=number) for number in range(3)]
    assert [owner.int for _, owner in sorted(share_out(hosts, 8).items())] == [2, 0, 1, 2, 1, 1, 0, 0]


@pytest.mark.parametrize(("hosts", "partitions"), [(3, 8), (4, 8), (6, 16), (9, 100)])
def test_little_moves_that_need_not(hosts: int, partitions: int) -> None:
    moved = needed = 0
    for seed in range(100):
        before = some_hosts(hosts + 1, seed)
        fewer, more = share_out(before[:-1], partitions), share_out(before, partitions)
        moved += sum(fewer[number] != more[number] for number in range(partitions))
        needed += sum(owner == before[-1] for owner in more.values())
    assert needed <= moved <= 1.6 * needed


def test_one_host_owns_everything_and_deputises_for_nobody() -> None:
    (host,) = some_hosts(1)
    share = share_of(host, [host], 8)
    assert share.owned == frozenset(range(8))
    assert share.deputy == frozenset()
