"""How hosts share the partitions: each of them computes the same answer from who lives, and from nothing else.

Every pair of a partition and a host has a score, a hash of both (rendezvous hashing). The pairs are gone through from
the highest score down, and a partition goes to the first host that still has room. Room is what makes it even: with P
partitions and H hosts every host gets ⌊P/H⌋ of them, and P mod H hosts get one more. Without that bound, of four hosts
with eight partitions one gets four or more nearly every second time. A score depends on its pair alone, so when a host
comes or goes most pairs are decided as before, and few partitions move beside those that have to.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from hashlib import blake2b
from uuid import UUID


@dataclass(frozen=True, slots=True)
class Share:
    """What one host has to do with the partitions.

    ``owners`` has the owner of each; ``owned`` are this host's. It is the ``deputy`` for those that it would own if
    their owner were gone.
    """

    owners: dict[int, UUID]
    owned: frozenset[int]
    deputy: frozenset[int]


def share_out(hosts: Collection[UUID], partitions: int) -> dict[int, UUID]:
    """Return the owner of each partition, from 0 on; nobody owns one if there are no hosts."""
    if not hosts:
        return {}
    everybody, one_more = divmod(partitions, len(hosts))
    room = dict.fromkeys(hosts, everybody)
    pairs = ((_score(host, number), number, host) for host in hosts for number in range(partitions))
    owners: dict[int, UUID] = {}
    for _, number, host in sorted(pairs, reverse=True):
        if number in owners or room[host] < 0 or (room[host] == 0 and not one_more):
            continue
        if room[host] == 0:
            one_more -= 1
        room[host] -= 1
        owners[number] = host
    return owners


def share_of(host: UUID, hosts: Collection[UUID], partitions: int) -> Share:
    """Return the share of one host of those that live."""
    owners = share_out(hosts, partitions)
    others = set(owners.values()) - {host}
    heirs = {other: share_out([each for each in hosts if each != other], partitions) for other in others}
    return Share(
        owners,
        owned=frozenset(number for number, owner in owners.items() if owner == host),
        deputy=frozenset(n for n, owner in owners.items() if owner != host and heirs[owner].get(n) == host),
    )


def _score(host: UUID, partition: int) -> bytes:
    return blake2b(b"%d:%b" % (partition, host.bytes), digest_size=8).digest()
