"""An app whose workflow does not compile: it awaits inside a comprehension."""

from holdfast import App, Message

app = App("uncompilable")


class ListGiven(Message, correlation="list_id"):
    list_id: str
    items: list[str]


@app.activity
async def measure(item: str) -> int:
    return len(item)


@app.workflow(start=ListGiven)
async def measure_all(given: ListGiven) -> list[int]:
    return [await measure(item) for item in given.items]
