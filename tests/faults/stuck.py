"""An app whose activity never ends by itself."""

import asyncio

from holdfast import App, Message

app = App("stuck")


class Begun(Message, correlation="key"):
    key: str


@app.activity
async def hang() -> None:
    print("hanging", flush=True)  # noqa: T201  Its test reads it.
    await asyncio.Event().wait()


@app.workflow(start=Begun)
async def stuck(start: Begun) -> None:
    await hang()
