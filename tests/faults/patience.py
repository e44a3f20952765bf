"""The app of the runs whose workers are down for a while: each instance waits for an answer, or for time to pass."""

from datetime import timedelta

from holdfast import App, Message, delay, first_of, receive

app = App("faulty-patience")


class Asked(Message, correlation="key"):
    key: str
    patience: timedelta


class Answered(Message, correlation="key"):
    key: str


@app.workflow(start=Asked)
async def ask(asked: Asked) -> str:
    first = await first_of(answered=receive(Answered, asked.key), late=delay(asked.patience))
    return first.name
