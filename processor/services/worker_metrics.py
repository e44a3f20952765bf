"""The metrics of a worker; ``docs/observability.md`` says what each one means."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

from prometheus_client.core import Metric

from holdfast.events.types import ActivityCompleted, ActivityFailed
from holdfast.processor.engine.counts import Counts
from holdfast.processor.engine.engine import Engine
from holdfast.processor.services.families import Families
from holdfast.processor.services.intake import Intake
from holdfast.processor.services.projection_metrics import projection_metrics
from holdfast.processor.services.relay import Relay
from holdfast.projections.condition import Condition
from holdfast.projections.queries import Class

STORED = (
    ("hosts", "Hosts of the app whose lease lives.", "hosts"),
    ("locks", "Locks of this host, as the store has them.", "locks"),
    ("buffered_messages", "Messages that wait in the inbox.", "buffered"),
    ("buffered_oldest_seconds", "Age of the oldest of them.", "oldest_buffered"),
    ("outbox_messages", "Messages in the outbox.", "outbox"),
    ("outbox_oldest_seconds", "Age of the oldest of them.", "oldest_outbox"),
    ("timer_lag_seconds", "How long the oldest due timer has not fired.", "timer_lag"),
    ("horizon_lag_seconds", "Age of the oldest event above the safe horizon.", "horizon_lag"),
    ("horizon_lag_transactions", "Transaction ids above the safe horizon.", "horizon_transactions"),
)
"""Gauges of the store: name, text, field of the condition."""


@dataclass(frozen=True, slots=True)
class Tenure:
    """What a worker works with while it is one host."""

    engine: Engine
    relay: Relay
    intake: Intake


@dataclass(slots=True)
class _AtRisk:
    """What would run again if the host died now."""

    instances: int = 0
    events: int = 0
    activities: int = 0
    seconds: float = 0.0


def worker_metrics(app: str, counts: Counts, tenure: Tenure | None, store: Condition | None) -> Sequence[Metric]:
    """Return the families of a worker, without samples of a store that could not be asked."""
    families = Families(app)
    _counted(families, counts)
    _held(families, tenure)
    _stored(families, store)
    return families.all


def _counted(families: Families, counts: Counts) -> None:
    counter = families.counter
    counter("tenures", "Times that this worker became a host, with a fresh lease.", counts.tenures)
    counter("deliveries", "Messages that RabbitMQ delivered.", counts.deliveries)
    counter("redeliveries", "Deliveries that were redeliveries.", counts.redeliveries)
    counter("duplicates", "Messages that were known already.", counts.duplicates)
    verdicts = {("applied", ""): counts.applied, **counts.verdicts}
    counter("verdicts", "Verdicts on messages and commands.", verdicts, "verdict", "reason")
    counter("instances_registered", "Instances that a message started.", counts.registered, "workflow")
    counter("instances_closed", "Instances that ended.", counts.closed, "workflow", "outcome")
    counter("suspensions", "Instances that were suspended.", counts.suspended, "reason")
    counter("bursts", "Bursts that were begun.", counts.bursts)
    activities = {"completed": counts.activities_completed, "failed": counts.activities_failed}
    counter("activities", "Activity calls that ended.", activities, "outcome")
    counter("persistence_points", "Batches that were committed.", counts.persistence_points)
    counter("events", "Events that were committed.", counts.events)
    counter("user_commits", "Commits on connections of their own, with user SQL.", counts.user_commits)
    counter("refused_batches", "Batches that were not committed.", counts.refused, "error")
    families.histogram("group_size", "Batches that were sent to the store in one group.", counts.group_sizes)
    families.histogram("commit_seconds", "How long the commit of a group took.", counts.commit_seconds)
    counter("published", "Messages that were published from the outbox.", counts.published, "fate")


def _held(families: Families, tenure: Tenure | None) -> None:
    gauge = families.gauge
    engine = tenure.engine if tenure else None
    holdings = list(engine.held.values()) if engine else []
    mail = sum(len(holding.mailbox.arrived) for holding in holdings)
    busy = [holding for holding in holdings if holding.busy]
    open_for = [seconds for h in busy if (seconds := h.instance.sql.seconds_open) is not None]
    gauge("loaded_instances", "Instances in the memory of this worker.", len(holdings))
    gauge("running_bursts", "Loaded instances that are in a burst.", len(busy))
    gauge("mailbox_messages", "Messages in the memory of held instances.", mail)
    gauge("lane_messages", "Messages on their way to an instance.", engine.lanes.messages if engine else 0)
    gauge("unsettled_deliveries", "Deliveries that are not settled.", tenure.intake.unsettled if tenure else 0)
    gauge("relay_messages", "Messages under way to RabbitMQ.", tenure.relay.depth if tenure else 0)
    gauge("consumed_partitions", "Partitions that this worker consumes.", len(tenure.intake.consumed) if tenure else 0)
    gauge("user_transactions", "Open transactions with user SQL.", len(open_for))
    gauge("user_transaction_oldest_seconds", "Age of the oldest of them.", max(open_for, default=0.0))
    age = engine.runtime.environment.monotonic() - engine.runtime.renewed_at if engine else None
    gauge("lease_age_seconds", "Since the lease was renewed.", age)
    gauge("lease_seconds", "How long a lease lasts.", engine.runtime.settings.lease if engine else None)
    risk = _at_risk(engine) if engine else _AtRisk()
    gauge("at_risk_instances", "Instances in a burst, or idle without a persistence point.", risk.instances)
    gauge("at_risk_events", "Their events since the last persistence points.", risk.events)
    gauge("at_risk_activities", "Activity calls that ended since then.", risk.activities)
    gauge("at_risk_seconds", "Since the oldest of these persistence points, or the begin of the burst.", risk.seconds)


def _at_risk(engine: Engine) -> _AtRisk:
    now, risk = engine.runtime.environment.monotonic(), _AtRisk()
    for holding in engine.held.values():
        instance = holding.instance
        if not holding.busy and not instance.is_unpersisted:
            continue
        risk.instances += 1
        risk.events += len(instance.unwritten.events)
        risk.activities += sum(isinstance(e, (ActivityCompleted, ActivityFailed)) for e in instance.unwritten.events)
        since = instance.sql.committed_at
        since = (since or holding.held_since) if instance.is_unpersisted else max(since, holding.busy_since)
        risk.seconds = max(risk.seconds, now - since)
    return risk


def _stored(families: Families, store: Condition | None) -> None:
    for name, text, field in STORED:
        families.gauge(name, text, None if store is None else getattr(store, field))
    dead = None if store is None else {"inbox": store.dead_inbox, "outbox": store.dead_outbox}
    families.gauge("dead_letters", "Dead letters.", dead, "box")
    classes = None if store is None else {name: store.non_persisted.get(name, 0) for name in get_args(Class)}
    families.gauge("non_persisted_instances", "Instances without a persistence point.", classes, "class")
    projection_metrics(families, None if store is None else store.projections)
