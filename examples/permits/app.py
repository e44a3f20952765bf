"""A permit case is followed from its first task to its closing, in whatever order the tasks come."""

from datetime import datetime

from holdfast import App, Message, Variants, first_of, receive
from holdfast.events.types import InstanceStarted, MessageReceived
from holdfast.projections.builtin.variants import Step

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


# Which traces the cases took, with counts: a step is a task, whatever message brought it.
@app.projection
class Traces(Variants):
    def label(self, event: Step) -> str | None:
        match event:
            case InstanceStarted() | MessageReceived() if event.message_type == TaskDone.message_type:
                return str(event.body["task"])
            case _:
                return None
