"""One event of every type, and strategies that make any events at all."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from hypothesis import strategies as st

from holdfast.events.types import (
    ActivityCompleted,
    ActivityDelayed,
    ActivityFailed,
    ActivityIntended,
    ActivityRequested,
    ActivityResolved,
    BookmarkClosed,
    BookmarkOpened,
    CancelRequested,
    Event,
    FrameChange,
    InstanceAbandoned,
    InstanceCancelled,
    InstanceCompleted,
    InstanceContinued,
    InstanceFaulted,
    InstanceForked,
    InstanceMigrated,
    InstanceResumed,
    InstanceStarted,
    InstanceSuspended,
    InstanceTerminated,
    MessageReceived,
    MessageSent,
    Persisted,
    PersistRequested,
    SubflowEnded,
    SubflowStarted,
    TimerCancelled,
    TimerFired,
    TimerRescheduled,
    TransactionRolledBack,
    UnloadRequested,
    Where,
)

HERE = Where("0", 3, 17)

FIRST_RELEASE: tuple[Event, ...] = (
    InstanceStarted(
        workflow="order",
        program_hash="6a09e667",
        correlation_key="order-1",
        message_id="m-1",
        message_type="OrderPlaced",
        body={"order_id": "order-1", "amount": {"$decimal": "12.50"}},
    ),
    ActivityCompleted(
        where=HERE, activity="reserve_stock", idempotency_key="i/0/3/1/reserve_stock", attempts=2, result="R-7"
    ),
    ActivityFailed(
        where=Where("0.1", 5, 21),
        activity="charge",
        idempotency_key="i/0.1/5/2/charge",
        attempts=5,
        error={"$exception": "builtins.ValueError", "args": ["no such card"]},
    ),
    BookmarkOpened(
        where=HERE, bookmark="0:paid", kind="message", message_type="PaymentReceived", correlation_key="order-1"
    ),
    BookmarkOpened(where=HERE, bookmark="0:late", kind="timer", due="2026-03-04T05:06:07.000008+00:00"),
    Persisted(
        reason="idle",
        frames={
            "0": FrameChange(
                step=3,
                line=17,
                visits=2,
                program="6a09e667",
                set={"reservation": "R-7", "$t1": None},
                unset=("placed",),
            )
        },
    ),
    MessageReceived(
        where=HERE,
        bookmark="0:paid",
        closes=("0:paid", "0:late"),
        message_id="m-2",
        message_type="PaymentReceived",
        correlation_key="order-1",
        body={"order_id": "order-1", "reference": "ü\u0000\u2028"},
    ),
    TimerFired(where=HERE, bookmark="0:late", closes=("0:late",), due="2026-03-04T05:06:07.000008+00:00"),
    MessageSent(
        where=HERE,
        message_id="i:8:0",
        message_type="OrderShipped",
        correlation_key="order-1",
        body={"n": [1, 2.5, True]},
    ),
    InstanceSuspended(reason="unhandled_exception", exception_name="ValueError", detail="no such card", where=HERE),
    InstanceSuspended(reason="requested"),
    InstanceResumed(by="ops", why="card replaced"),
    InstanceCompleted(result={"$tuple": ["R-7"]}),
    Persisted(reason="completed", ended=("0", "0.1")),
    BookmarkClosed(where=Where("0.4-2", 7, 21), bookmark="0.4-2.1"),
)
"""What the first released form knew."""

CHILD = "01890a5d-ac96-774b-bcce-b302099a8057"
ERROR = {"$exception": "builtins.ValueError", "args": ["no such card"]}
CHARGE = "i/0/3/1/charge"
PACK = "i/0/4/1/pack"

SECOND_RELEASE: tuple[Event, ...] = (
    InstanceStarted(
        workflow="order",
        program_hash="6a09e667",
        correlation_key="order-1",
        message_id="m-1",
        message_type="OrderPlaced",
        body={"order_id": "order-1"},
        reply_to="shop.answers",
        parent="01890a5d-ac96-774b-bcce-b302099a8056",
        subflow="start",
        awaited_as="01890a5d-ac96-774b-bcce-b302099a8055",
    ),
    ActivityCompleted(
        where=HERE, activity="book", idempotency_key="i/0/3/1/book", attempts=1, result=None, is_record=True
    ),
    ActivityIntended(where=HERE, activity="charge", idempotency_key=CHARGE),
    Persisted(
        reason="activity_intent",
        frames={"0": FrameChange(step=3, line=17, visits=1)},
        idle=True,
        values={"tenant": "north"},
        promoted={"city": "Ulm", "amount": {"$decimal": "12.50"}},
    ),
    InstanceSuspended(reason="in_doubt", detail="charge", where=HERE),
    InstanceSuspended(reason="requested", detail="stock-taking", by="ops"),
    ActivityResolved(
        where=HERE,
        activity="charge",
        idempotency_key=CHARGE,
        decision="done",
        by="ops",
        why="the bank has it",
        result={"$tuple": ["C-1"]},
    ),
    ActivityResolved(where=HERE, activity="charge", idempotency_key=CHARGE, decision="retry", by="ops"),
    ActivityDelayed(
        where=HERE,
        activity="charge",
        idempotency_key=CHARGE,
        attempts=2,
        error=ERROR,
        due="2026-03-04T05:06:07.000008+00:00",
    ),
    ActivityRequested(
        where=Where("0", 4, 18), activity="pack", idempotency_key=PACK, attempt=1, queue="packers", message_id="i:9:0"
    ),
    BookmarkOpened(
        where=Where("0", 4, 18),
        bookmark="0.4.1",
        kind="activity",
        message_type="holdfast.ActivityResult",
        correlation_key=PACK,
    ),
    TransactionRolledBack(where=HERE, error=ERROR),
    SubflowStarted(
        where=Where("0", 5, 19), instance_id=CHILD, workflow="invoice", correlation_key="order-1", mode="start"
    ),
    BookmarkOpened(
        where=Where("0", 5, 19),
        bookmark="0.5.1",
        kind="child",
        message_type="holdfast.SubflowResult",
        correlation_key=CHILD,
    ),
    MessageReceived(
        where=HERE,
        bookmark="0:paid",
        closes=("0:paid",),
        message_id="m-2",
        message_type="PaymentReceived",
        correlation_key="order-1",
        body={},
        reply_to="shop.answers",
    ),
    SubflowEnded(
        where=Where("0", 5, 19),
        instance_id=CHILD,
        workflow="invoice",
        outcome="completed",
        result="I-1",
        closes=("0.5.1",),
    ),
    SubflowEnded(where=HERE, instance_id=CHILD, workflow="invoice", outcome="faulted", error=ERROR),
    CancelRequested(by="ops", why="ordered twice"),
    CancelRequested(by="ops"),
    InstanceFaulted(error=ERROR, where=HERE),
    InstanceFaulted(error=ERROR),
    InstanceCancelled(error=ERROR, where=HERE),
    InstanceCancelled(),
    InstanceTerminated(by="ops", why="ordered twice"),
    InstanceTerminated(by="ops"),
    InstanceContinued(instance_id="01890a5d-ac96-774b-bcce-b302099a8058"),
)
"""The types and fields that the second release added."""

THIRD_RELEASE: tuple[Event, ...] = (
    InstanceAbandoned(by="ops", why="it hangs"),
    InstanceAbandoned(by="ops"),
    PersistRequested(by="ops", why="before the move"),
    PersistRequested(by="ops"),
    UnloadRequested(by="ops", why="the host is to go"),
    UnloadRequested(by="ops"),
    TimerRescheduled(
        where=HERE, bookmark="0.2/late", due="2026-03-04T05:06:07.080000+00:00", by="ops", why="another day"
    ),
    TimerRescheduled(where=HERE, bookmark="0.2/late", due="2026-03-04T05:06:07.080000+00:00", by="ops"),
    TimerCancelled(where=HERE, bookmark="0.2/late", by="ops", why="they may take their time"),
    TimerCancelled(where=HERE, bookmark="0.2/late", by="ops"),
    TimerFired(
        where=HERE,
        bookmark="0.2/late",
        closes=("0.2/late",),
        due="2026-03-04T05:06:07.080000+00:00",
        by="ops",
        why="enough",
    ),
    InstanceStarted(
        workflow="order",
        program_hash="6a09e667",
        correlation_key="order-1",
        message_id="m-1",
        message_type="OrderPlaced",
        body={},
        traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    ),
)
"""The types and fields that the third release added."""

FOURTH_RELEASE: tuple[Event, ...] = (
    InstanceForked(
        origin=CHILD,
        origin_version=7,
        workflow="order",
        program_hash="6a09e667",
        correlation_key="order-1-again",
        by="ops",
        why="what if",
        changed=("0.amount",),
        reply_to="shop.answers",
        reply_key="order-1",
        traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    ),
    InstanceForked(
        origin=CHILD, origin_version=7, workflow="order", program_hash="6a09e667", correlation_key="order-1", by="ops"
    ),
    InstanceMigrated(
        from_program="6a09e667", to_program="bb67ae85", by="ops", why="the new prices", lines={"0.2/late": 19}
    ),
    InstanceMigrated(from_program="6a09e667", to_program="bb67ae85", by="ops"),
)
"""The types and fields that the fourth release added."""

EVERY_TYPE = (*FIRST_RELEASE, *SECOND_RELEASE, *THIRD_RELEASE, *FOURTH_RELEASE)
"""Every type, each field once with and, if it may be left out, once without a value."""

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 63) - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
    lambda trees: st.lists(trees, max_size=3) | st.dictionaries(st.text("ab$.", max_size=3), trees, max_size=3),
    max_leaves=5,
)

_NAMES = st.sampled_from(["0", "0.1", "x", "y"])
"""Few, so that events meet: what one opens, another closes."""


def events() -> st.SearchStrategy[Event]:
    """Make events of every type, with any values that their fields allow."""
    return st.one_of([_dataclass(cls) for cls in get_args(Event)])


def _dataclass(cls: type) -> st.SearchStrategy[Any]:
    hints = get_type_hints(cls)
    return st.builds(cls, **{field.name: _values(hints[field.name]) for field in fields(cls)})


def _values(hint: Any) -> st.SearchStrategy[Any]:
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any:
        return JSON
    if hint is str:
        return _NAMES
    if hint is bool:
        return st.booleans()
    if hint is int:
        return st.integers(0, 9)
    if hint is NoneType:
        return st.none()
    if is_dataclass(hint) and isinstance(hint, type):
        return _dataclass(hint)
    if origin is Literal:
        return st.sampled_from(arguments)
    if origin in (Union, UnionType):
        return st.one_of([_values(arm) for arm in arguments])
    if origin is tuple:
        return st.lists(_values(arguments[0]), max_size=3).map(tuple)
    if origin is Mapping:
        return st.dictionaries(_NAMES, _values(arguments[1]), max_size=3)
    raise TypeError(f"no strategy for {hint!r}")
