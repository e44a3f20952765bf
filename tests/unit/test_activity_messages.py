"""The messages between hosts and activity workers, as docs/activities.md shows them."""

import re
from typing import Any

import pytest

from holdfast.processor.language.app import App
from holdfast.schemas.activity_messages import ActivityHeartbeat, ActivityRequest, ActivityResult, lost
from holdfast.schemas.errors import ActivityLost, InvalidMessage
from holdfast.schemas.message import Message
from holdfast.schemas.values import Types, decode
from tests.architecture.house import ROOT

PAGE = (ROOT / "docs" / "activities.md").read_text()
SHOWN = re.findall(r"^```json\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize(
    ("kind", "shown"),
    [*zip([ActivityRequest, ActivityHeartbeat, ActivityResult, ActivityResult], SHOWN, strict=True)],
    ids=["request", "heartbeat", "completed", "failed"],
)
def test_what_the_page_shows_keeps_the_contract(kind: type[Message], shown: str) -> None:
    message = kind.parse_body(shown.encode())
    assert message.correlation_key == "0199c1a2-7c1e-7d3a-9d6e-2f6c1b0a4e55:4:0"


def test_the_page_names_every_field_of_a_request() -> None:
    table = PAGE[PAGE.index("### Request") : PAGE.index("### Heartbeat")]
    rows = re.findall(r"^\| (`.+?) \|", table, re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert named == {*ActivityRequest.model_fields, "type", "message_id", "correlation_id"}


@pytest.mark.parametrize("error", [None, "no", {}, {"$exception": "ValueError"}, {"$exception": 1, "args": []}])
def test_a_failure_without_an_exception_breaks_the_contract(error: Any) -> None:
    with pytest.raises(ValueError, match="a failed activity has an error, such as"):
        ActivityResult(request="r", outcome="failed", error=error)


@pytest.mark.parametrize("seconds", ["0", "-1", "86401", '"soon"'])
def test_a_heartbeat_promises_a_sensible_time(seconds: str) -> None:
    with pytest.raises(InvalidMessage, match="seconds"):
        ActivityHeartbeat.parse_body(f'{{"request": "r", "seconds": {seconds}}}'.encode())


def test_a_lost_request_has_one_answer_that_an_app_can_name() -> None:
    assert lost("r", "why") == lost("r", "why")
    result = ActivityResult.parse(lost("r", "why"))
    error = decode({"error": result.error}, Types.of(ActivityLost))["error"]
    assert isinstance(error, ActivityLost)
    assert str(error) == "why"


def test_an_app_knows_what_it_hears_of_activities() -> None:
    assert {ActivityResult.message_type, ActivityHeartbeat.message_type} <= App("empty").messages.keys()
