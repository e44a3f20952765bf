"""The batcher: who is served together, and who is not served."""

import asyncio
from collections.abc import Sequence

from holdfast.processor.engine.batcher import Batcher


async def test_what_was_cancelled_while_it_waited_is_not_served() -> None:
    served: list[list[int]] = []
    began, gate = asyncio.Event(), asyncio.Event()

    async def serve(items: Sequence[int]) -> Sequence[int]:
        served.append(list(items))
        began.set()
        await gate.wait()
        return items

    batcher: Batcher[int, int] = Batcher(serve, limit=2)
    tasks = [asyncio.create_task(batcher.put(number)) for number in range(5)]
    await began.wait()
    tasks[2].cancel()
    tasks[3].cancel()
    gate.set()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert served == [[0, 1], [4]]
    assert [answers[number] for number in (0, 1, 4)] == [0, 1, 4]
