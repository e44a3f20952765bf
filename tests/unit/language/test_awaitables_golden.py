"""Version 1 of the stored form of what a frame waits for, kept by a file that no later version may fail to read.

``python -m tests.unit.language.test_awaitables_golden`` writes the file; that is right only for awaitables that were
added.
"""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson

from holdfast.processor.language import compensable
from holdfast.processor.language.awaitables import (
    STORED,
    ActivityCall,
    Checkpoint,
    CompensableScope,
    Compensating,
    ContinueAsNew,
    Defer,
    Delay,
    Ended,
    Enter,
    FirstOf,
    Gather,
    Gathering,
    Leave,
    NoPersist,
    Outcome,
    Receive,
    Reply,
    RoutineCall,
    Running,
    Send,
    SubflowCall,
    Suspend,
    TransactedReceive,
    TransactionScope,
)
from holdfast.processor.language.compensable import Action, Ledger
from holdfast.schemas.errors import Cancelled
from holdfast.schemas.message import Message
from holdfast.schemas.values import Types, decode, encode
from tests.support.graphs import difference

FILE = Path(__file__).parents[2] / "golden" / "awaitables" / "v1.json"


class Note(Message, correlation="key"):
    key: str


TYPES = Types.of(*STORED, *compensable.STORED)
TYPES.add(Note, "golden:Note")


def examples() -> dict[str, Any]:
    """Give one of every kind."""
    receive: Receive[Any] = Receive("Note", "k", timedelta(days=1))
    return {
        "0.activity": ActivityCall("pay", (1, "a"), {"rate": [2]}),
        "0.receive": [receive, Receive("Note", "k")],
        "0.delay": [Delay(timedelta(seconds=1)), Delay(datetime(2026, 1, 2, tzinfo=UTC))],
        "0.first_of": FirstOf({"a": Delay(timedelta(1)), "b": Receive("Note", "k")}),
        "0.send": Send(Note(key="k")),
        "0.checkpoint": Checkpoint(),
        "0.outcome": [Outcome("a"), Outcome("b", Note(key="k"))],
        "0.call": RoutineCall("remind", {"claim": "c", "times": 3}),
        "0.gather": Gather((ActivityCall("pay"), RoutineCall("remind", {}))),
        "0.running": Running(),
        "0.gathering": [
            Gathering([Ended("paid"), Running(), receive]),
            Gathering([Ended(), Running()], ValueError("failed"), is_cancelling=True),
        ],
        "0.cancelled": Cancelled(),
        "0.reply": Reply(Note(key="k")),
        "0.defer": Defer(ActivityCall("book", ("k",))),
        "0.suspend": Suspend("on purpose"),
        "0.subflow": [SubflowCall("child", Note(key="k"), mode) for mode in ("run", "start", "spawn")],
        "0.continue": ContinueAsNew(Note(key="k")),
        "0.scopes": [TransactionScope(), TransactionScope(timedelta(seconds=5)), NoPersist(), CompensableScope()],
        "0.compensating": [Compensating(ActivityCall("pay")), Compensating(Ended())],
        "0.$ledger": ledger(),
        "0.enter": Enter(TransactedReceive("Note", "k", timedelta(1))),
        "0.leave": [Leave(TransactionScope()), Leave(TransactedReceive("Note", "k"), ValueError("failed"))],
    }


def ledger() -> Ledger:
    """Give compensable scopes in every state that is kept."""
    made = Ledger()
    outer = made.open("0")
    outer.actions.append(Action("confirm", made.count(), ActivityCall("thank", ("k",))))
    inner = made.open("0.2")
    inner.actions.append(Action("undo", made.count(), RoutineCall("release", {"key": "k"})))
    inner.actions.append(Action("cancel", made.count(), ActivityCall("cancel")))
    made.close(inner, ValueError("failed"))
    made.close(outer, None)
    made.open("0.3-1")
    return made


def test_version_1_is_read() -> None:
    assert difference(examples(), decode(orjson.loads(FILE.read_bytes()), TYPES)) is None


def test_version_1_is_written() -> None:
    assert encode(examples(), TYPES) == orjson.loads(FILE.read_bytes())


def test_version_1_shows_every_kind() -> None:
    text = FILE.read_text()
    assert [kind.__name__ for kind in (*STORED, *compensable.STORED) if f":{kind.__qualname__}" not in text] == []


if __name__ == "__main__":
    FILE.write_bytes(orjson.dumps(encode(examples(), TYPES), option=orjson.OPT_INDENT_2) + b"\n")
