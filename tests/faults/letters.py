"""The app of the runs whose activity workers are killed: each letter is printed by one queue and posted by another."""

import asyncio
from datetime import timedelta

from holdfast import App, Message, Retry, gather

app = App("faulty-letters")
PATIENT = Retry(attempts=50, delay=timedelta(milliseconds=100))


class Written(Message, correlation="letter"):
    letter: str


@app.activity(queue="print", retry=PATIENT, heartbeat=timedelta(seconds=2))
def print_out(letter: str) -> str:
    return f"{letter} on paper"


@app.activity
async def fold(paper: str) -> str:
    return f"{paper}, folded"


@app.activity(queue="post", retry=PATIENT)
async def post(letter: str, *, stamps: tuple[int, ...]) -> str:
    # Long enough for a worker to be killed in the middle of many.
    await asyncio.sleep(0.02)
    return f"{letter}, posted with {sum(stamps)}"


@app.workflow(start=Written)
async def letter(written: Written) -> list[str]:
    folded = await fold(await print_out(written.letter))
    return list(await gather(post(folded, stamps=(1, 2)), fold("copy")))
