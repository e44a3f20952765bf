"""Both providers keep every law of the port."""

import pytest

from holdfast.processor.testing.conformance.laws import LAWS, Law
from holdfast.testing import provider_conformance


@pytest.mark.parametrize("law", provider_conformance.laws(), ids=str)
async def test_the_provider_keeps_the_law(law: Law, store: provider_conformance.Store) -> None:
    await law.check(store)


def test_no_law_is_left_out() -> None:
    assert len(provider_conformance.laws()) == len({law.name for law in LAWS}) == len(LAWS)


def test_locking_is_a_level_of_its_own() -> None:
    core = provider_conformance.laws(locking=False)
    assert {law.level for law in core} == {"core"}
    assert {law.level for law in provider_conformance.laws() if law not in core} == {"locking"}
