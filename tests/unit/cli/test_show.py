"""What ``holdfast show`` prints of an instance's subflows."""

from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID

from holdfast.processor.cli.show import tree
from holdfast.projections.queries import Relative

TOP, ONE, TWO, BELOW = (UUID(int=number) for number in range(1, 5))
MOMENT = datetime(2026, 3, 4, tzinfo=UTC)
SUBFLOW = Relative(
    depth=1,
    instance_id=ONE,
    app="shop",
    workflow="invoice",
    program_hash="p",
    correlation_key="a",
    partition=0,
    start_message_id=f"{ONE}:start",
    execution_status="idle",
    outcome=None,
    is_initialized=True,
    is_suspended=False,
    suspension_reason=None,
    suspension_exception_name=None,
    creation_time=MOMENT,
    last_updated_time=MOMENT,
    pending_timer=None,
    active_bookmarks=[],
    current_machine=None,
    last_machine=None,
    lock_owner=None,
    lock_token=None,
    lock_expiration=None,
    version=3,
    parent_id=TOP,
    subflow="start",
    state_encoding="none",
    promoted=None,
)


def test_subflows_stand_below_what_they_came_out_of() -> None:
    closed = replace(SUBFLOW, instance_id=TWO, correlation_key="b", subflow="spawn", outcome="faulted")
    below = replace(SUBFLOW, instance_id=BELOW, depth=2, parent_id=ONE, workflow="letter", subflow="run")
    assert list(tree(TOP, [SUBFLOW, closed, below])) == [
        f"  start invoice/a: idle, {ONE}",
        f"    run letter/a: idle, {BELOW}",
        f"  spawn invoice/b: faulted, {TWO}",
    ]


def test_a_long_line_of_instances_that_go_on_as_others_is_shown_to_its_end() -> None:
    numbers = range(1, 2000)
    chain = [
        replace(SUBFLOW, instance_id=UUID(int=n + 1), parent_id=UUID(int=n), depth=n, subflow="continued")
        for n in numbers
    ]
    lines = list(tree(TOP, chain))
    assert len(lines) == len(numbers)
    assert lines[-1] == f"  continued invoice/a: idle, {UUID(int=2000)}"
