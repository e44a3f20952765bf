"""The workflow of the golden program with scopes."""

from typing import Any

from holdfast.processor.language.scopes import no_persist, transaction
from tests.support.twin import act


async def golden_scopes(items: list[int]) -> Any:
    """Enter and leave scopes by every way out."""
    for item in items:
        async with transaction() as nothing, no_persist():
            if item < 0:
                continue
            if await act(item):
                return nothing
    async with transaction():
        await act("last")
    return items
