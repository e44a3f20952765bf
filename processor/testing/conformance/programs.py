"""Stored programs."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from uuid import uuid4

from holdfast.processor.testing.conformance.harness import AUDIT, ORDER, Store
from holdfast.processor.testing.conformance.laws import law


@law
async def a_program_without_a_signature_gets_one_later_and_is_otherwise_kept(store: Store) -> None:
    await store.provider.save_programs([AUDIT])
    await store.provider.save_programs([replace(AUDIT, program={"steps": [1]}, signature=b"signed")])
    assert await store.provider.load_program(AUDIT.program_hash) == replace(AUDIT, signature=b"signed")


@law
async def a_signature_stays(store: Store) -> None:
    await store.provider.save_programs([ORDER])
    await store.provider.save_programs([replace(ORDER, signature=b"other")])
    await store.provider.save_programs([replace(ORDER, signature=None)])
    assert await store.provider.load_program(ORDER.program_hash) == ORDER


@law
async def of_how_long_a_program_should_take_the_last_word_counts(store: Store) -> None:
    for lifetime in (timedelta(days=2), timedelta(minutes=5), None):
        program = replace(ORDER, expected_lifetime=lifetime)
        await store.provider.save_programs([replace(program, signature=None)])
        assert await store.provider.load_program(ORDER.program_hash) == replace(program, signature=None)
    await store.provider.save_programs([replace(ORDER, expected_lifetime=timedelta(days=1))])
    assert await store.provider.load_program(ORDER.program_hash) == replace(ORDER, expected_lifetime=timedelta(days=1))


@law
async def a_program_stays_as_it_was_first_saved(store: Store) -> None:
    await store.provider.save_programs([ORDER])
    await store.provider.save_programs([replace(ORDER, program={"steps": [1]}, receives=()), AUDIT])
    assert await store.provider.load_program(ORDER.program_hash) == ORDER
    assert await store.provider.load_program(AUDIT.program_hash) == AUDIT
    assert await store.provider.load_program("unheard-of") is None


@law
async def programs_live_as_long_as_an_instance_that_runs_on_them(store: Store) -> None:
    host = await store.host()
    assert await store.provider.living_programs() == []
    case = await store.waiting(host, "k", "Paid")
    await store.register(host, "l", AUDIT)
    living = [(AUDIT.workflow, AUDIT.program_hash), (ORDER.workflow, ORDER.program_hash)]
    assert await store.provider.living_programs() == living
    await store.commit(case.end())
    assert await store.provider.living_programs() == [(AUDIT.workflow, AUDIT.program_hash)]


@law("locking")
async def programs_run_elsewhere_as_long_as_another_host_that_has_them_all_lives(store: Store) -> None:
    here, there, programs = uuid4(), await store.host(), [ORDER.program_hash, AUDIT.program_hash]
    assert await store.provider.runs_elsewhere(here, programs)
    assert not await store.provider.runs_elsewhere(here, [*programs, "unheard-of"])
    assert not await store.provider.runs_elsewhere(there, programs)
    await store.behind.lapse(there)
    assert not await store.provider.runs_elsewhere(here, programs)
