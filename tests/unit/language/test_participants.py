"""What an app makes of participant classes."""

from collections.abc import Callable
from typing import Any

import pytest

from holdfast import App, AppError, Message, Participant


class Placed(Message, correlation="key"):
    key: str


class Line:
    """A class that is declared nowhere else."""


class Cart(Participant):
    lines: list[dict[str, Line]]


class Audit(Participant): ...


class Demanding(Participant):
    def __init__(self, path: str, *more: str) -> None: ...


class Lost(Participant):
    lines: "list[Nowhere]"  # type: ignore[name-defined] # noqa: F821 It is what the check is to find.


class Stranger:
    """No participant."""


async def simple(placed: Placed) -> None:
    return None


def register(kind: Any, **options: Any) -> Callable[[App], object]:
    return lambda app: app.participant(**options)(kind)


@pytest.fixture
def app() -> App:
    return App("shop")


def test_participants_are_for_all_workflows_or_for_those_that_are_named(app: App) -> None:
    app.workflow(start=Placed)(simple)
    app.participant(Audit)
    app.participant(workflows=(simple,))(Cart)
    app.participant(workflows=["another"])(type("Other", (Participant,), {}))
    assert app.participants_of("simple") == (Audit, Cart)
    assert [kind.__name__ for kind in app.participants_of("another")] == ["Audit", "Other"]


def test_a_workflow_may_be_defined_after_its_participant(app: App) -> None:
    app.participant(workflows=(simple,))(Cart)
    app.workflow(start=Placed, name="later")(simple)
    app.check()
    assert app.participants_of("later") == (Cart,)


def test_the_annotations_of_a_participant_declare_what_its_values_may_be(app: App) -> None:
    app.participant(Cart)
    assert Line in app._classes()


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (Stranger, "is no participant: make it a subclass of Participant"),
        (simple, "is no participant: make it a subclass of Participant"),
        (Demanding, "participant Demanding needs 'path' to be made: give it a default"),
    ],
)
def test_a_class_that_cannot_be_a_participant_is_refused_at_once(app: App, kind: Any, said: str) -> None:
    with pytest.raises(AppError, match=said):
        app.participant(kind)


def test_a_participant_is_registered_once(app: App) -> None:
    app.participant(Cart)
    with pytest.raises(AppError, match="app shop has participant Cart already"):
        app.participant(workflows=())(Cart)


@pytest.mark.parametrize(
    ("step", "said"),
    [
        (register(Cart, workflows=("nothing",)), "participant Cart is for nothing, which is no workflow of app shop"),
        (register(Lost), "participant Lost: annotation names an unknown type"),
    ],
)
def test_what_depends_on_other_names_is_refused_by_the_check(
    app: App, step: Callable[[App], object], said: str
) -> None:
    step(app)
    with pytest.raises(AppError, match=said):
        app.check()
