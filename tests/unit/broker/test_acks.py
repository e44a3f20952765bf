"""Acks against a broker that is as strict as RabbitMQ about the tags it gets."""

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from holdfast.processor.broker.acks import Ack, AckTracker

LIMIT = 4


class StrictBroker(RuleBasedStateMachine):
    """Deliveries come, are settled in any order, and are acked; every ack must be one the broker takes."""

    def __init__(self) -> None:
        super().__init__()
        self.tracker = AckTracker(LIMIT)
        self.delivered = 0
        self.outstanding: set[int] = set()
        self.unsettled: set[int] = set()

    @rule(count=st.integers(1, 8))
    def deliver(self, count: int) -> None:
        tags = range(self.delivered + 1, self.delivered + count + 1)
        self.delivered += count
        self.outstanding |= set(tags)
        self.unsettled |= set(tags)

    @precondition(lambda self: self.unsettled)
    @rule(data=st.data())
    def settle(self, data: st.DataObject) -> None:
        tag = data.draw(st.sampled_from(sorted(self.unsettled)))
        self.unsettled.remove(tag)
        self.tracker.settle(tag)

    @precondition(lambda self: self.unsettled)
    @rule(data=st.data())
    def reject(self, data: st.DataObject) -> None:
        tag = data.draw(st.sampled_from(sorted(self.unsettled)))
        self.unsettled.remove(tag)
        self.outstanding.remove(tag)
        self.tracker.leave_out(tag)

    @precondition(lambda self: self.delivered > len(self.unsettled))
    @rule(data=st.data())
    def settle_again(self, data: st.DataObject) -> None:
        settled = set(range(1, self.delivered + 1)) - self.unsettled
        self.tracker.settle(data.draw(st.sampled_from(sorted(settled))))

    @rule()
    def send(self) -> None:
        self._receive(self.tracker.take())
        waiting = self.outstanding - self.unsettled
        assert len(waiting) <= LIMIT
        assert all(tag > min(self.unsettled, default=0) for tag in waiting)

    @rule()
    def send_everything(self) -> None:
        self._receive(self.tracker.take(everything=True))
        assert self.outstanding == self.unsettled
        assert not self.tracker.has_waiting

    def _receive(self, acks: list[Ack]) -> None:
        for ack in acks:
            assert ack.tag in self.outstanding, "RabbitMQ closes the channel over an unknown tag"
            taken = {tag for tag in self.outstanding if tag <= ack.tag} if ack.multiple else {ack.tag}
            assert not taken & self.unsettled, "acked before it was settled"
            self.outstanding -= taken

    @invariant()
    def counts_what_is_settled(self) -> None:
        assert self.tracker.settled == self.delivered - len(self.unsettled)


TestAcks = StrictBroker.TestCase


def test_settled_in_order_everything_is_acked_by_one_frame() -> None:
    tracker = AckTracker(LIMIT)
    for tag in range(1, 401):
        tracker.settle(tag)
    assert tracker.take() == [Ack(400, multiple=True)]
    assert tracker.take() == []


def test_an_ack_for_many_never_names_a_tag_that_was_acked_alone() -> None:
    tracker = AckTracker(LIMIT)
    tracker.settle(2)
    tracker.settle(3)
    assert tracker.take(everything=True) == [Ack(2, multiple=False), Ack(3, multiple=False)]
    tracker.settle(1)
    assert tracker.take() == [Ack(1, multiple=True)]
