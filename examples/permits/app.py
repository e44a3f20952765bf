"""A permit case is followed from its first task to its closing, in whatever order the tasks come."""

from datetime import datetime

from holdfast import App, Message, first_of, receive

app = App("permits")


class TaskDone(Message, correlation="case"):
    case: str
    task: str
    resource: str
    done_at: datetime


class CaseClosed(Message, correlation="case"):
    case: str


# The first task of a case starts its instance; the later ones find it by the same type and key.
@app.workflow(start=TaskDone)
async def permit(first: TaskDone) -> list[str]:
    trace = [first.task]
    while True:
        came = await first_of(
            task=receive(TaskDone, first.case),
            closing=receive(CaseClosed, first.case),
        )
        if came.name == "closing":
            return trace
        trace.append(came.value.task)
