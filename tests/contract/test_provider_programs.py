"""The laws of stored programs, for every persistence provider."""

from dataclasses import replace

from tests.support.stores import AUDIT, ORDER, Store


async def test_a_program_without_a_signature_gets_one_later_and_is_otherwise_kept(store: Store) -> None:
    await store.provider.save_programs([AUDIT])
    await store.provider.save_programs([replace(AUDIT, program={"steps": [1]}, signature=b"signed")])
    assert await store.provider.load_program(AUDIT.program_hash) == replace(AUDIT, signature=b"signed")


async def test_a_signature_stays(store: Store) -> None:
    await store.provider.save_programs([ORDER])
    await store.provider.save_programs([replace(ORDER, signature=b"other")])
    await store.provider.save_programs([replace(ORDER, signature=None)])
    assert await store.provider.load_program(ORDER.program_hash) == ORDER
