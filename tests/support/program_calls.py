"""Random awaits of more than an activity: routines, ``gather``, waits for messages and timers, and scopes."""

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass

from tests.support.program_expressions import Choose, Draw, Expression, Expressions, of, settle


@dataclass(frozen=True)
class Signature:
    """How a routine is called: its parameters, and what it binds by itself."""

    parameters: str
    names: tuple[str, ...]
    prologue: str = ""


SIGNATURES = (
    Signature("xs, i=2", ("xs", "i")),
    Signature("b=None, *, n=1", ("b", "n")),
    # A call that is awaited twice passes the same dict, which no Python can.
    Signature("z, /, *rest, **named", ("z", "xs", "ds"), "xs, ds = (list(rest), dict(named))"),
)


TRANSACTIONS = ("transaction", "transacted_receive")

OPAQUE = (*TRANSACTIONS, "no_persist")
"""The scopes inside which nothing waits."""


@dataclass(frozen=True)
class Routine:
    """A routine that generated functions may call; it may be written later."""

    name: str
    signature: Signature


class Calls(Expressions):
    """Draws expressions that may await anything that a workflow may."""

    def __init__(self, choose: Choose, routines: Sequence[Routine]) -> None:
        super().__init__(choose)
        self.routines = routines
        self.scopes: list[str] = []
        self.compensable = False

    @property
    def may_wait(self) -> bool:
        """Whether the scopes around allow to await what waits or persists."""
        return not any(scope in OPAQUE for scope in self.scopes)

    def answer(self, depth: int) -> Expression:
        """Draw an await whose answer may be anything."""
        if self.chance(3):
            return super().answer(depth)
        return self.awaited(self.awaitable(depth))

    def awaited(self, call: Expression) -> Expression:
        """Await what an expression gives."""
        return Expression(f"(await {call})", awaits=True)

    def awaitable(self, depth: int) -> Expression:
        """Draw something to await."""
        kinds: list[Draw] = [self._branch, self.routine, self.gather, self._branch, self.compensating]
        return self.pick(*kinds)(depth)

    def routine(self, depth: int) -> Expression:
        """Draw the call of a routine, if there is one."""
        if not self.routines:
            return self._any_activity(depth)
        called = self.pick(*self.routines)
        shapes = {
            SIGNATURES[0]: ("{items}", "{items}, {scalar}", "xs={items}, i={scalar}", "{scalar}, {items}"),
            SIGNATURES[1]: ("", "{value}, n={scalar}", "n={scalar}"),
            SIGNATURES[2]: ("{value}", "{value}, {value}, n=1", "{value}, *xs, k={items}", "{value}, **ds"),
        }
        # This one fits one signature only, and only because it takes any name.
        shape = "1, q=2" if self.chance(20) else self.pick(*shapes[called.signature])
        return self._filled(f"{called.name}({shape})", depth)

    def _filled(self, shape: str, depth: int) -> Expression:
        """Write the expressions whose kinds stand in the text of a call."""
        draws: dict[str, Draw] = {"items": self.items, "scalar": self.scalar, "value": self.value}
        pieces = re.split(r"\{(\w+)\}", shape)
        parts = settle(*(draws[kind](depth) for kind in pieces[1::2]))
        texts = [*itertools.chain(*zip(pieces[::2], map(str, parts), strict=False)), pieces[-1]]
        return of("".join(texts), *parts, calls=True)

    def gather(self, depth: int) -> Expression:
        """Draw a ``gather``."""
        name = self.pick("same", *(routine.name for routine in self.routines))
        shape = self.pick("branches", "one for each", "none", "wrong") if self.chance(3) else "branches"
        if shape == "one for each":
            items = self.pick("xs[:3]", "range(2)", "(xs, ys)")
            return Expression(f"gather(*[{name}(q) for q in {items}])", calls=True)
        first = self._branch(depth)
        with self.natively():
            # What comes before an await of the same expression must not call.
            more = [self._branch(depth) for _ in range(self.pick(1, 2, 0))]
            if shape == "wrong":
                more = [Expression(self.pick("gather()", "send(Ping(key='k'))", "i"), calls=True)]
        parts = [] if shape == "none" else [first, *more]
        return of(f"gather({', '.join(map(str, parts))})", *parts, calls=True)

    def first_of(self, depth: int) -> Expression:
        """Draw a ``first_of``."""
        first = self.receive(depth)
        with self.natively():
            second = self.pick(self.delay, self.receive)(depth)
        return of(f"first_of(one={first}, two={second})", first, second, calls=True)

    def receive(self, depth: int) -> Expression:
        """Draw a ``receive``."""
        key = self.scalar(depth)
        if self.chance(2):
            return of(f"receive(Ping, {key})", key, calls=True)
        with self.natively():
            late = self.scalar(depth)
        return of(f"receive(Ping, {key}, timeout=timedelta(seconds={late}))", key, late, calls=True)

    def delay(self, depth: int) -> Expression:
        """Draw a ``delay``."""
        late = self.scalar(depth)
        return of(f"delay(timedelta({late}))", late, calls=True)

    def scope(self) -> Expression:
        """Draw what opens a scope, and be inside of it from here on."""
        inside = set(self.scopes)
        kinds = ["no_persist", "transacted_receive", "transaction", "compensable", "compensable"]
        if "no_persist" in inside:
            kinds.remove("transaction")
        if not self.may_wait:
            kinds.remove("transacted_receive")
        if inside & set(TRANSACTIONS):
            kinds = [kind for kind in kinds if kind != "compensable"]
        kind = self.pick(*kinds)
        if kind == "transacted_receive":
            receive = self.receive(1)
            scope = of(f"transacted_{receive}", receive)
        elif kind == "transaction" and self.chance(3):
            late = self.scalar(1)
            scope = of(f"transaction(timedelta(seconds={late}))", late)
        else:
            scope = Expression(f"{kind}()")
        self.scopes.append(kind)
        self.compensable |= kind == "compensable"
        return scope

    def _branch(self, depth: int) -> Expression:
        kinds: list[Draw] = [self._any_activity, self.routine, self.routine, self.compensating]
        if self.may_wait:
            kinds += [self.receive, self.first_of, self.delay]
        return self.pick(*kinds)(depth)

    def compensating(self, depth: int) -> Expression:
        """Draw the call that undoes or confirms a scope, if there was one."""
        if not self.compensable and not self.chance(8):
            return self._any_activity(depth)
        return Expression(f"{self.pick('compensate', 'confirm')}({'z' if self.chance(6) else 'u'})", calls=True)

    def action(self) -> str:
        """Write how a compensable scope is told what to call."""
        with self.natively():
            value = self.value(1)
        called = self.pick("same", "number", "grow", *(routine.name for routine in self.routines))
        if self.chance(8):
            called = self.pick("fail", "note")
        kind = self.pick("undo", "confirm", "cancel", "undo")
        return f"{'z' if self.chance(10) else 'u'}.{kind}({called}, {value})"

    def _any_activity(self, depth: int) -> Expression:
        return self.activity(self.pick("number", "fail", "grow", "same", "fresh"), depth)
