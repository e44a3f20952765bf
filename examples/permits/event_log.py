"""The event log of the permit process, as the messages that it stands for."""

import csv
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from examples.permits.app import CaseClosed, TaskDone
from holdfast import Message


def read(path: Path) -> list[TaskDone]:
    """Return the tasks of the file, in time order across the cases; those of one moment in file order."""
    with path.open(newline="", encoding="utf-8") as file:
        tasks = [
            TaskDone(
                case=row["case:concept:name"],
                task=row["concept:name"],
                resource=row["org:resource"],
                # Offsets differ between summer and winter, so the texts do not sort by time.
                done_at=datetime.fromisoformat(row["time:timestamp"]),
            )
            for row in csv.DictReader(file)
        ]
    return sorted(tasks, key=lambda task: task.done_at)


def messages(tasks: list[TaskDone]) -> Iterator[tuple[str, Message]]:
    """Give each task with its message id, the same in every run, and after a case's last task its closing."""
    tasks_of = Counter(task.case for task in tasks)
    seen: Counter[str] = Counter()
    for task in tasks:
        seen[task.case] += 1
        yield f"{task.case}/{seen[task.case]}", task
        if seen[task.case] == tasks_of[task.case]:
            yield f"{task.case}/closed", CaseClosed(case=task.case)
