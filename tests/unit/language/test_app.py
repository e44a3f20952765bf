"""What an app refuses: when something is registered, or when it is checked as a whole."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any, cast

import pytest

from holdfast.processor.language.activity import Retry
from holdfast.processor.language.app import App
from holdfast.processor.language.transaction import Transaction
from holdfast.schemas.errors import AppError, CompileError
from holdfast.schemas.message import Message

other = App("other")


class Placed(Message, correlation="key"):
    key: str


class Loose(Message):
    key: str


class Renamed(Message, correlation="key", type="Placed"):
    key: str


@other.activity
async def elsewhere(key: str) -> str:
    return key


async def simple(placed: Placed) -> None:
    return None


async def loose(start: Loose) -> None:
    return None


async def strays(placed: Placed) -> None:
    await elsewhere(placed.key)


async def forgets(placed: Placed) -> None:
    await forgotten(placed.key)  # type: ignore[name-defined] # noqa: F821 It is what the check is to find.


async def names_both(placed: Placed) -> object:
    return Renamed


async def takes_two(placed: Placed, more: str) -> None:
    return None


def plainly(tx: Transaction, key: str) -> None:
    return None


async def records(tx: Transaction, key: str) -> None:
    return None


def unknowable(key: "Nowhere") -> None:  # type: ignore[name-defined] # noqa: F821 It is what the check is to find.
    return None


def workflow(function: Any, *, start: type[Message] = Placed, **options: Any) -> Callable[[App], object]:
    return lambda app: app.workflow(start=start, **options)(function)


def activity(function: Any, **options: Any) -> Callable[[App], object]:
    return lambda app: app.activity(**options)(function)


REGISTERED: list[tuple[list[Callable[[App], object]], str]] = [
    ([activity(plainly), activity(plainly)], "two activities named 'plainly'"),
    ([activity(plainly, name="x" * 256)], "activity has 256 bytes, at most 255"),
    ([activity(plainly, timeout=timedelta(0))], "activity plainly: timeout must be positive"),
    ([activity(simple, queue="q", heartbeat=timedelta(0))], "activity simple: heartbeat must be positive"),
    (
        [activity(simple, heartbeat=timedelta(1))],
        "a heartbeat is sent by activity workers, so it needs a queue",
    ),
    (
        [activity(simple, repeatable=False, retry=Retry(attempts=2))],
        "not repeatable, so it cannot have 2 attempts",
    ),
    ([activity(simple, queue="x" * 256)], "queue has 256 bytes, at most 255"),
    ([workflow(simple), workflow(simple, start=Loose)], "two workflows named 'simple'"),
    ([workflow(simple), workflow(strays)], "Placed starts both simple and strays"),
    ([workflow(simple, name="x" * 256)], "workflow has 256 bytes, at most 255"),
    ([workflow(simple, persistence="sometimes")], "persistence='sometimes': use one of regular, in_memory"),
    ([workflow(simple, promote=("other",))], "workflow simple promotes 'other', which is none of its variables"),
    ([workflow(simple, expected_lifetime=timedelta())], r"expected_lifetime=.*: a workflow takes some time"),
    (
        [workflow(simple, on_unhandled="pray")],
        "on_unhandled='pray': use one of .*, cancel, terminate",
    ),
]

CHECKED: list[tuple[list[Callable[[App], object]], str]] = [
    ([workflow(forgets)], r"test_app\.py:\d+: workflow forgets uses forgotten, which .*test_app does not define"),
    ([workflow(strays)], "workflow strays uses activity 'elsewhere' of another app than shop"),
    (
        [workflow(loose, start=Loose)],
        r"Loose starts loose but has no correlation: declare it as class Loose\(Message, ",
    ),
    ([workflow(names_both)], "two message types are named 'Placed'"),
    ([activity(plainly)], "record activity plainly is a plain function: make it an async def"),
    ([activity(unknowable)], "activity unknowable: annotation names an unknown type"),
    ([activity(records, queue="q")], "record activity records cannot be on queue 'q'"),
    ([activity(records, repeatable=False)], "record activity records is exactly-once anyway"),
]


@pytest.mark.parametrize(("steps", "said"), REGISTERED, ids=[said for _, said in REGISTERED])
def test_what_is_wrong_by_itself_is_refused_at_once(steps: list[Callable[[App], object]], said: str) -> None:
    app = App("shop")
    *before, last = steps
    for step in before:
        step(app)
    with pytest.raises(AppError, match=said):
        last(app)


@pytest.mark.parametrize(("steps", "said"), CHECKED, ids=[said for _, said in CHECKED])
def test_what_depends_on_other_names_is_refused_by_the_check(steps: list[Callable[[App], object]], said: str) -> None:
    app = App("shop")
    for step in steps:
        step(app)
    with pytest.raises(AppError, match=said):
        app.check()


def test_a_workflow_takes_its_start_message_and_nothing_else() -> None:
    with pytest.raises(CompileError, match=r"workflow takes_two takes 2 parameters\. A workflow takes one") as caught:
        workflow(takes_two)(App("shop"))
    assert (caught.value.file, caught.value.line) == (__file__, takes_two.__code__.co_firstlineno)


@pytest.mark.parametrize("name", ["", "Shop", "1shop", "sh op", "shöp", "x" * 64])
def test_the_name_of_an_app_makes_names_of_queues(name: str) -> None:
    with pytest.raises(AppError, match="lower-case letters, digits"):
        App(name)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"attempts": 0}, "at least one attempt"),
        ({"factor": 0.5}, "waits cannot shrink"),
        ({"delay": timedelta(seconds=-1)}, r"delay=.*a wait cannot be negative"),
        ({"max_delay": timedelta(seconds=-1)}, r"max_delay=.*a wait cannot be negative"),
    ],
)
def test_a_retry_that_makes_no_sense_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(AppError, match=said):
        Retry(**options)


def test_waits_between_attempts_grow_to_their_bound() -> None:
    retry = Retry(delay=timedelta(seconds=1), factor=2, max_delay=timedelta(seconds=3))
    assert [retry.wait(attempt) for attempt in (1, 2, 3, 9, 9999)] == [1, 2, 3, 3, 3]
    assert Retry(delay=timedelta(0)).wait(9999) == 0
    assert Retry(delay=timedelta(days=7), max_delay=timedelta(days=9)).wait(1) == 7 * 24 * 3600


def test_an_activity_registered_is_data_when_called() -> None:
    app = App("shop")
    registered = cast("Any", activity(plainly, name="other_name")(app))
    call = registered(key="k")
    assert (call.activity, call.args, call.kwargs) == ("other_name", (), {"key": "k"})
    assert registered.is_record
