"""A short soak: every kind of death once, and every order accounted for. `./dev soak` is the long one."""

from pathlib import Path

from compose.local.services import Services
from tests.faults.soak.deaths import KINDS
from tests.faults.soak.run import Plan, soak

EVERY = 9.0
SEED = 20261128


async def test_whatever_dies_every_order_is_accounted_for(own_services: Services, tmp_path: Path) -> None:
    told: list[str] = []
    plan = Plan(seed=SEED, seconds=EVERY * (len(KINDS) + 1), every=EVERY, rate=8)
    outcome = await soak(own_services, plan, tmp_path, told.append)
    assert not outcome.problems, "\n".join([*outcome.problems, *told])
    assert set(outcome.deaths) == {kind.__name__ for kind in KINDS}
    assert outcome.orders > 0
    assert outcome.take_overs > 0
