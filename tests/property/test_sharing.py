"""Laws of the sharing of partitions, whoever lives and however many partitions there are."""

from collections import Counter
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from holdfast.processor.core.sharing import share_of, share_out

HOSTS = st.sets(st.uuids(), min_size=1, max_size=8)
PARTITIONS = st.integers(1, 32)


@given(HOSTS, PARTITIONS)
def test_every_partition_has_one_owner_and_hosts_differ_by_one_at_most(hosts: set[UUID], partitions: int) -> None:
    owners = share_out(hosts, partitions)
    assert sorted(owners) == list(range(partitions))
    owned = Counter(owners.values())
    counts = [owned[host] for host in hosts]
    assert max(counts) - min(counts) <= 1


@given(HOSTS, PARTITIONS)
def test_the_shares_of_the_hosts_are_the_whole(hosts: set[UUID], partitions: int) -> None:
    shares = {host: share_of(host, hosts, partitions) for host in hosts}
    assert sorted(number for share in shares.values() for number in share.owned) == list(range(partitions))
    deputised = sorted(number for share in shares.values() for number in share.deputy)
    assert deputised == (list(range(partitions)) if len(hosts) > 1 else [])


@given(HOSTS, PARTITIONS)
def test_a_deputy_owns_the_partition_once_its_owner_is_gone(hosts: set[UUID], partitions: int) -> None:
    for host in hosts:
        share = share_of(host, hosts, partitions)
        for number in share.deputy:
            assert share_out(hosts - {share.owners[number]}, partitions)[number] == host
