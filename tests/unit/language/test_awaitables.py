"""What a workflow awaits is checked when it is made, and is plain data."""

import copy
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from holdfast.processor.language.awaitables import (
    Awaitable,
    Checkpoint,
    Delay,
    FirstOf,
    Receive,
    Send,
    checkpoint,
    delay,
    first_of,
    receive,
    send,
)
from holdfast.schemas.errors import InvalidMessage
from holdfast.schemas.message import Message


class Paid(Message, correlation="order", type="shop.paid"):
    order: str


MADE = [
    (lambda: receive(Paid, "o1"), Receive("shop.paid", "o1", None)),
    (lambda: receive(Paid, 7, timedelta(1)), Receive("shop.paid", "7", timedelta(1))),
    (lambda: receive(Paid, UUID(int=1)), Receive("shop.paid", str(UUID(int=1)))),
    (lambda: send(Paid(order="o1")), Send(Paid(order="o1"))),
    (lambda: delay(timedelta(-1)), Delay(timedelta(-1))),
    (lambda: delay(datetime(2030, 1, 1, tzinfo=UTC)), Delay(datetime(2030, 1, 1, tzinfo=UTC))),
    (lambda: first_of(late=delay(timedelta(1))), FirstOf({"late": Delay(timedelta(1))})),
    (checkpoint, Checkpoint()),
]


@pytest.mark.parametrize(("make", "expected"), MADE)
def test_awaitables_are_data(make: Callable[[], Awaitable[Any]], expected: Awaitable[Any]) -> None:
    made = make()
    assert made == expected
    assert copy.deepcopy(made) == made


REFUSED: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: receive("Paid", "o1"), TypeError, "takes a Message class"),  # type: ignore[arg-type]
    (lambda: receive(Paid(order="o1"), "o1"), TypeError, "takes a Message class"),  # type: ignore[arg-type]
    (lambda: receive(Paid, "o1", 5), TypeError, "timeout"),  # type: ignore[arg-type]
    (lambda: receive(Paid, ""), InvalidMessage, "empty"),
    (lambda: receive(Paid, "x" * 256), InvalidMessage, "256 bytes"),
    (lambda: send("text"), TypeError, "takes a Message"),  # type: ignore[arg-type]
    (lambda: delay(5), TypeError, "takes a timedelta or a datetime"),  # type: ignore[arg-type]
    (lambda: delay(datetime(2030, 1, 1)), ValueError, "time zone"),  # noqa: DTZ001 - that is what is refused
    (first_of, TypeError, "at least one branch"),
    (lambda: first_of(a=send(Paid(order="o1"))), TypeError, "'a'"),
    (lambda: first_of(a=5), TypeError, "'a'"),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(("make", "error", "text"), REFUSED)
def test_wrong_arguments_are_refused(make: Callable[[], Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        make()


def test_driver_of_a_coroutine_gets_the_data_and_gives_the_answer() -> None:
    async def workflow() -> Any:
        return await receive(Paid, "o1")

    coroutine = workflow()
    assert coroutine.send(None) == Receive("shop.paid", "o1")
    with pytest.raises(StopIteration) as stopped:
        coroutine.send("answer")
    assert stopped.value.value == "answer"
