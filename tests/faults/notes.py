"""The app of the runs with bad input: a note is kept, and later read."""

from threading import Lock

from holdfast import App, Message, receive

app = App("notes")


class NoteTaken(Message, correlation="note"):
    note: str
    pages: int = 1


class HandleTaken(Message, correlation="note"):
    note: str


class NoteRead(Message, correlation="note"):
    note: str


@app.activity
async def keep(note: str) -> str:
    return f"kept {note}"


@app.workflow(start=NoteTaken)
async def note(taken: NoteTaken) -> str:
    kept = await keep(taken.note)
    await receive(NoteRead, taken.note)
    return kept


# A lock is no data, so an instance that waits cannot be stored with one in a variable.
@app.workflow(start=HandleTaken)
async def handle(taken: HandleTaken) -> str:
    grip = Lock()
    await receive(NoteRead, taken.note)
    return repr(grip)
