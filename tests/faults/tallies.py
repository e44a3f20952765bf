"""The app of the runs whose workers share partitions: an instance takes in the numbers of its key, and notes each."""

from holdfast import App, Message, Transaction, receive

app = App("faulty-tallies")


class Opened(Message, correlation="key"):
    key: str
    count: int


class Counted(Message, correlation="key"):
    key: str
    number: int


# The table has no unique key, so that a number noted twice is there twice.
@app.activity
async def note(tx: Transaction, key: str, number: int) -> None:
    await tx.execute("insert into notes (key, number) values (%s, %s)", (key, number))


@app.workflow(start=Opened)
async def tally(opened: Opened) -> str:
    for _ in range(opened.count):
        counted = await receive(Counted, opened.key)
        await note(opened.key, counted.number)
    return opened.key
