"""What a projection class has to be, and which handler gets which event."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest

from holdfast import App, AppError, Projection, RecordedEvent
from holdfast.events.recorded import Cursor
from holdfast.events.types import Event, InstanceCompleted, InstanceContinued, InstanceStarted
from holdfast.projections.definition import subscription

TABLE = "create table t (n int)"
COMPLETED, CONTINUED = InstanceCompleted(result=1), InstanceContinued(instance_id="i")


def record(event: Event, number: int = 1) -> RecordedEvent:
    return RecordedEvent(uuid4(), number, event, Cursor(1, 1, number), {}, datetime.now(UTC))


class OneByOne(Projection):
    create = TABLE

    async def completed(self, tx: list[Any], event: InstanceCompleted) -> None:
        tx.append(("completed", event))

    async def ended(self, tx: list[Any], event: InstanceCompleted | InstanceContinued, recorded: RecordedEvent) -> None:
        tx.append(("ended", recorded.version))

    def helper(self) -> None: ...

    async def _private(self) -> None: ...


class InBatches(Projection):
    create = TABLE
    version = 3

    async def continued(self, tx: list[Any], events: list[InstanceContinued]) -> None:
        tx.append(("continued", events))

    async def ended(
        self,
        tx: list[Any],
        events: Sequence[InstanceCompleted | InstanceContinued],
        recorded: Sequence[RecordedEvent],
    ) -> None:
        tx.append(("ended", events, [it.version for it in recorded]))


async def test_handlers_of_single_events_are_called_in_the_order_of_the_log() -> None:
    it = subscription("shop", OneByOne)
    calls: list[Any] = []
    await it.handle(calls, [record(CONTINUED, 1), record(COMPLETED, 2)])
    assert calls == [("ended", 1), ("completed", COMPLETED), ("ended", 2)]
    assert (it.name, it.schema, it.types) == (
        "one_by_one",
        "shop_one_by_one",
        {"InstanceCompleted", "InstanceContinued"},
    )


async def test_handlers_of_sequences_get_all_of_their_types_at_once() -> None:
    it = subscription("my-shop", InBatches)
    calls: list[Any] = []
    await it.handle(calls, [record(COMPLETED, 1), record(CONTINUED, 2), record(COMPLETED, 3)])
    assert calls == [("continued", [CONTINUED]), ("ended", [COMPLETED, CONTINUED, COMPLETED], [1, 2, 3])]
    await it.handle(calls, [record(COMPLETED, 4)])
    assert calls[2:] == [("ended", [COMPLETED], [4])]
    assert (it.schema, it.version) == ("my_shop_in_batches", 3)


class WithoutTables(OneByOne):
    create = " "


class WithoutHandlers(Projection):
    create = TABLE


class Mixed(OneByOne):
    async def all(self, tx: Any, events: Sequence[InstanceStarted]) -> None: ...


class Untyped(Projection):
    create = TABLE

    async def anything(self, tx: Any, event: Any) -> None: ...


class Misnamed(Projection):
    create = TABLE

    async def anything(self, tx: Any, event: "NoSuchEvent") -> None: ...  # type: ignore[name-defined]  # noqa: F821


class Bare(Projection):
    create = TABLE

    async def anything(self, tx: Any) -> None: ...


class ElsewhereInPublic(OneByOne):
    schema = "public"


class WithLongName(OneByOne):
    name = "x" * 60


class FromNothing(OneByOne):
    version = 0


class Ignoring(OneByOne):
    on_poison = "ignore"  # type: ignore[assignment]


class Needy(OneByOne):
    def __init__(self, value: int) -> None: ...


@pytest.mark.parametrize(
    ("kind", "complaint"),
    [
        (WithoutTables, "says nowhere how its tables are created"),
        (WithoutHandlers, "has no handler"),
        (Mixed, "let all be alike"),
        (Untyped, r"untyped\.anything: annotate its second parameter with an event type"),
        (Misnamed, "unknown type"),
        (Bare, "takes a transaction, an event"),
        (ElsewhereInPublic, "is not its own"),
        (WithLongName, "at most 54"),
        (FromNothing, "count from 1"),
        (Ignoring, "use one of stop, skip"),
        (Needy, "cannot be made without arguments"),
    ],
)
def test_what_cannot_be_run_is_refused_when_the_app_is_checked(kind: type[Projection], complaint: str) -> None:
    app = App("shop")
    app.projection(kind)
    with pytest.raises(AppError, match=complaint):
        app.check()


def test_a_name_is_given_once() -> None:
    app = App("shop")
    app.projection(OneByOne)
    with pytest.raises(AppError, match="two projections named 'one_by_one'"):
        app.projection(OneByOne)


def test_names_of_holdfasts_own_are_refused() -> None:
    class Feed(OneByOne):
        name = "holdfast.feed"

    with pytest.raises(AppError, match="Holdfast's own"):
        App("shop").projection(Feed)
