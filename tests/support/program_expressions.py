"""Random expressions for generated workflow functions, with awaits wherever a workflow may await.

An expression whose value is scalar may be printed and added up without ever growing large; ``value`` gives any other.
Whether an expression can be compiled is known while it is made: what comes before an await of the same
expression must hold no call once its own awaits are taken out, so where one does, it is awaited itself (``settle``).
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from tests.support.program_world import ERRORS

T = TypeVar("T")

Choose = Callable[[int], int]
"""Draws a number from zero, the simplest choice, up to but not including a limit."""

SCALARS = ("i", "j", "k")
"""Variables that are mostly small numbers, but may become anything."""

SMALL = ("n", "s")
"""Variables that are numbers and short texts, or unbound."""

LISTS = ("xs", "ys")
BOXES = ("b", "c")
CAUGHT = ("err", "exc")
ANY = ("z", *SCALARS, *LISTS, "ds", "ss", *BOXES, "m", *CAUGHT, "u")


@dataclass(frozen=True)
class Expression:
    """Source text, in brackets where needed; whether it awaits, and whether what is left without awaits calls."""

    text: str
    awaits: bool = False
    calls: bool = False

    def __str__(self) -> str:
        return self.text


E = Expression

Draw = Callable[[int], Expression]
"""Draws an expression of at most that depth."""


def settle(*parts: Expression) -> list[Expression]:
    """Make parts, which Python evaluates one after the other, such that none has to be kept while it calls."""
    last = max((at for at, part in enumerate(parts) if part.awaits), default=-1)
    return [
        Expression(f"(await same({part}))", awaits=True) if at < last and part.calls else part
        for at, part in enumerate(parts)
    ]


def of(text: str, *parts: Expression, calls: bool = False) -> Expression:
    """Make an expression of text that holds the parts."""
    return Expression(text, awaits=any(part.awaits for part in parts), calls=calls or any(part.calls for part in parts))


class Expressions:
    """Draws expressions: without awaits while ``native`` is above zero, and names only if they are to be ``simple``."""

    def __init__(self, choose: Choose) -> None:
        self.choose = choose
        self.native = 0
        self.simple = False

    def pick(self, *choices: T) -> T:
        """Draw one of some choices; the first is the simplest."""
        return choices[self.choose(len(choices))]

    def chance(self, of: int) -> bool:
        """Draw whether something happens that is to happen once in ``of`` times."""
        return self.choose(of) == of - 1

    def may_await(self, of: int = 3) -> bool:
        """Draw whether to await here, in ``of - 1`` of ``of`` cases where that is possible."""
        return not self.native and not self.chance(of)

    @contextlib.contextmanager
    def natively(self) -> Iterator[None]:
        """Draw without awaits meanwhile."""
        self.native += 1
        yield
        self.native -= 1

    # Scalars

    def scalar(self, depth: int = 2) -> Expression:
        """Draw an expression whose value is a small number, if it has one."""
        if depth <= 0 or self.simple:
            return self._leaf()
        kinds: list[Draw] = [self._leaf, self._sum, self._call, self._choice, self.condition, self._walrus]
        kinds.append(self._used_function)
        if not self.native:
            kinds += [self._number, self._rebinding, self._number]
        return self.pick(*kinds)(depth - 1)

    def _rebinding(self, _depth: int) -> Expression:
        """Draw something whose name gets another value while it waits."""
        name = self.pick(*SCALARS)
        answer = self.pick(f"await same(({name} := 5))", f"({name} := await number())", f"await same(({name} := None))")
        return E(f"({name} {self.pick('+', '!=')} {answer})", awaits=True)

    def _leaf(self, _depth: int = 0) -> Expression:
        return E(self.pick("1", "0", "2", "-1", "n", *SCALARS, "True", "None"))

    def _sum(self, depth: int) -> Expression:
        left, right = settle(self.scalar(depth), self.scalar(depth))
        operator = self.pick("+", "-", "*", "//", "%", "|")
        return of(f"(({left} {operator} {right}) % 97)", left, right)

    def _call(self, depth: int) -> Expression:
        if self.chance(2):
            value = self.value(depth)
            return of(self.pick(f"len({value})", f"(note({value}) is not None)"), value, calls=True)
        value = self.scalar(depth)
        return of(f"note({value})", value, calls=True)

    def _choice(self, depth: int) -> Expression:
        test, body, other = self.condition(depth), self.scalar(depth), self.scalar(depth)
        return _settled(f"({body} if {test} else {other})", test, body, other)

    def _walrus(self, depth: int) -> Expression:
        value = self.scalar(depth)
        return of(f"({self.pick(*SCALARS, 'n')} := {value})", value)

    def _used_function(self, _depth: int) -> Expression:
        name = self.pick(*SCALARS)
        text = self.pick(
            f"apply(lambda q: (q + {name}) % 97, 2)",
            f"sum(1 for q in xs[:5] if q is not ys or {name})",
            f"max([{name}, 2], key=lambda q: -q)",
        )
        return E(text, calls=True)

    def _number(self, depth: int) -> Expression:
        if self.chance(2):
            return self.awaiting("number", depth)
        value = self.scalar(depth)
        return E(f"(await same({value}))", awaits=True)

    # Conditions

    def condition(self, depth: int = 2) -> Expression:
        """Draw an expression that is mostly used for its truth."""
        if depth <= 0:
            return E(self.pick("True", "False", "i", "n", "xs", "ds", "z", "(xs is ys)", "(z is xs)"))
        kinds = [self._compare, self._not, self._both, self._chain, self._is_in, self._is_kind, self._scalar_truth]
        if not self.native:
            kinds.append(self._truth)
        return self.pick(*kinds)(depth - 1)

    def _compare(self, depth: int) -> Expression:
        left, right = settle(self.scalar(depth), self.scalar(depth))
        return of(f"({left} {self.pick('<', '==', '>=', '!=')} {right})", left, right)

    def _not(self, depth: int) -> Expression:
        value = self.condition(depth)
        return of(f"(not {value})", value)

    def _both(self, depth: int) -> Expression:
        parts = [self.condition(depth) for _ in range(self.pick(2, 3))]
        operator = self.pick(" and ", " or ")
        return _settled(f"({operator.join(map(str, parts))})", *parts)

    def _chain(self, depth: int) -> Expression:
        first, second, third = settle(self.scalar(depth), self.scalar(depth), self.scalar(depth))
        text = f"({first} {self.pick('<', '!=')} {second} {self.pick('<=', '==')} {third})"
        return _settled(text, first, second, third)

    def _is_in(self, depth: int) -> Expression:
        value, container = settle(self.scalar(depth), self.items(depth))
        return of(f"({value} {self.pick('in', 'not in')} {container})", value, container)

    def _is_kind(self, depth: int) -> Expression:
        value = self.value(depth)
        kind = self.pick("Box", "list", "(int, dict)", "Exception", "i")
        return of(f"isinstance({value}, {kind})", value, calls=True)

    def _scalar_truth(self, depth: int) -> Expression:
        return self.scalar(depth)

    def _truth(self, depth: int) -> Expression:
        return self.awaiting("truth", depth)

    # Anything

    def value(self, depth: int = 2) -> Expression:
        """Draw an expression of any kind."""
        if depth <= 0 or self.simple:
            return E(self.pick(*ANY, "b.value", "xs[0]", "ds['a']"))
        kinds: list[Draw] = [self._name, self.scalar, self.items, self.mapping, self._part, self._tuple]
        kinds += [self._object, self.text]
        if not self.native:
            kinds += [self.answer, self._growing, self.answer]
        return self.pick(*kinds)(depth - 1)

    def _name(self, _depth: int) -> Expression:
        return E(self.pick(*ANY))

    def _part(self, depth: int) -> Expression:
        if self.chance(2):
            return E(self.pick("b.value", "b.other", "m.owner", "c.value", "z.value", "err.load", "err.args", "z.body"))
        if self.chance(3):
            index = self.key(depth, index=False)
            return of(f"ds[{index}]", index)
        owner, index = settle(self.items(depth - 1), self.key(depth))
        return of(f"{owner}[{index}]", owner, index)

    def _tuple(self, depth: int) -> Expression:
        parts = settle(self.value(depth), self.value(depth))
        return of(f"({parts[0]}, {parts[1]})", *parts)

    def _object(self, depth: int) -> Expression:
        if self.chance(3):
            value = self.items(depth)
            return of(f"Ledger(items={value})", value, calls=True)
        value, other = settle(self.value(depth), self.value(depth))
        return of(self.pick(f"Box({value}, {other})", f"Box(other={value}, value={other})"), value, other, calls=True)

    def answer(self, depth: int) -> Expression:
        """Draw an await whose answer may be anything."""
        return self.awaiting(self.pick("fresh", "same", "grow", "pair", "named", "fail"), depth)

    def _growing(self, _depth: int) -> Expression:
        """Draw something that is looked at before or after an await changes it."""
        name = self.pick(*LISTS)
        first = E(self.pick(name, f"{name}[-1]", f"{name}[:9]"))
        text = self.pick(
            f"(await same(*{name}, await grow({name})))",
            f"[*{name}, (await grow({name}))[-1]]",
            f"({first}, await grow({name}))",
            f"({{'a': {first}, **ds, 'b': await grow({name})}})",
            f"(await grow({name}) and {first})",
            f"(note({name}[:9]) and (await grow({name}), {first}))",
            f"({name}[:9] + (await grow({name}))[:9])",
            f"{name}[-1:await number()]",
            f"({name}, await same(({name} := [1])), ({name} := await items()))",
            f"({self.pick('c', 'k', 'z', *CAUGHT)}, await number())",
        )
        return E(text, awaits=True)

    def awaiting(self, name: str, depth: int) -> Expression:
        """Draw an await of an activity."""
        return E(f"(await {self.activity(name, depth)})", awaits=True)

    def activity(self, name: str, depth: int) -> Expression:
        """Draw the call of an activity."""
        shape = self.pick("one", "none", "two", "named", "starred", "doubly starred")
        if shape == "none" and name not in ("same", "grow"):
            return E(f"{name}()", calls=True)
        one = self.value(depth)
        if shape == "two":
            one, two = settle(one, self.value(depth))
            return of(f"{name}({one}, {two})", one, two, calls=True)
        if shape == "named" and name == "fail":
            return of(f"{name}({one}, how={self.pick(*map(repr, ERRORS))})", one, calls=True)
        if shape == "named":
            one, two = settle(one, self.value(depth))
            return of(f"{name}({one}, k={two})", one, two, calls=True)
        if shape == "starred":
            items, one = settle(self.items(depth), one)
            return of(f"{name}(*{items}, {one})", items, one, calls=True)
        if shape == "doubly starred" and name != "fail":
            one, more = settle(one, self.mapping(depth))
            return of(f"{name}({one}, **{more})", one, more, calls=True)
        return of(f"{name}({one})", one, calls=True)

    def text(self, _depth: int = 1) -> Expression:
        """Draw a formatted text of scalars."""
        left, right = settle(self._printable(), self._printable())
        shape = self.pick("plain", "converted", "nested")
        if shape == "nested":
            left, right, width = settle(left, right, self._printable())
            return of(f'f"{{{left}!r}}{{{right}:>{{{width}}}}}"', left, right, width)
        if shape == "converted":
            return of(f'f"{{{left}!s:.9}}{{{{}}}}{{{right}!r:>4}}{{n=}}"', left, right)
        return of(f'f"{{{left}}}-{{{right}}}"', left, right)

    def _printable(self) -> Expression:
        """Draw a scalar whose text is short, and that itself holds no text."""
        if self.may_await() and self.chance(2):
            return E(self.pick("(await number())", "(await truth(n))"), awaits=True)
        if self.chance(3):
            return E("len(xs)", calls=True)
        return E(self.pick("n", "1", "None", "s[:9]", "((n + 1) % 97)"))

    # Containers

    def items(self, depth: int = 2) -> Expression:
        """Draw an expression whose value is a list, if it has one."""
        if depth <= 0:
            return E(self.pick(*LISTS))
        shape = self.pick("name", "display", "starred", "slice", "comprehension", "sorted", "answer", "model")
        depth -= 1
        if shape == "display":
            parts = settle(*(self.value(depth) for _ in range(self.pick(0, 1, 2))))
            return of(f"[{', '.join(map(str, parts))}]", *parts)
        if shape == "starred":
            first, second = settle(self.slice(depth), self.value(depth))
            return of(self.pick(f"[*{first}, {second}]", f"[{first}, *[{second}]]"), first, second)
        if shape == "slice":
            return self.slice(depth)
        if shape == "comprehension":
            return self.comprehension()
        if shape == "sorted":
            return E("sorted(ss)", calls=True)
        if shape == "model":
            return E("m.items")
        if shape == "answer" and not self.native:
            return self.awaiting("items", depth)
        return E(self.pick(*LISTS))

    def slice(self, depth: int) -> Expression:
        """Draw a short part of a list."""
        owner = E(self.pick(*LISTS))
        if self.chance(2):
            low, high = settle(self.scalar(depth - 1), self.scalar(depth - 1))
            return of(f"{owner}[{low}:{high}][:4]", low, high)
        return E(f"{owner}{self.pick('[:3]', '[-2:]', '[::2][:4]')}")

    def comprehension(self) -> Expression:
        """Draw a comprehension; it reads variables and may bind one."""
        name, other = self.pick(*SCALARS), self.pick(*ANY)
        text = self.pick(
            "[q for q in xs[:4]]",
            f"[(q, {other}) for q in xs[:4] if q is not xs]",
            f"[({name} := q) for q in ys[:4]]",
            f"[[q, r, {other}] for q in xs[:2] for r in ys[:2] if {name}]",
            f"[{name} for {name} in xs[:3]]",
        )
        return E(text, calls=True)

    def mapping(self, depth: int = 2) -> Expression:
        """Draw an expression whose value is a dict, if it has one."""
        shape = self.pick("name", "display", "starred", "comprehension", "answer")
        depth -= 1
        if shape == "display" and depth >= 0:
            first, second = settle(self.value(depth), self.value(depth))
            return of(f"{{'a': {first}, 'b': {second}}}", first, second)
        if shape == "starred" and depth >= 0:
            key, value = settle(self.key(depth, index=False), self.value(depth))
            return of(f"{{**ds, {key}: {value}}}", key, value)
        if shape == "comprehension":
            return E(f"{{str(q): {self.pick(*ANY)} for q in range(2)}}", calls=True)
        if shape == "answer" and not self.native and depth >= 0:
            return self.awaiting(self.pick("fresh", "named"), depth)
        return E("ds")

    def numbers(self, depth: int = 2) -> Expression:
        """Draw an expression whose value is a set of small numbers, which all Pythons walk in the same order."""
        if self.chance(3):
            return E(self.pick("{q % 8 for q in xs[:4]}", "ss | {1}", "set()"), calls=True)
        if self.chance(2):
            first, second = settle(self.scalar(depth - 1), self.scalar(depth - 1))
            return of(f"{{{first} % 8, {second} % 8}}", first, second)
        return E("ss")

    def key(self, depth: int = 1, *, index: bool = True) -> Expression:
        """Draw an index, mostly, or a key."""
        if self.chance(3) and depth > 0:
            return self.scalar(depth - 1)
        if self.may_await() and self.chance(3):
            return E("(await number()) % 2", awaits=True)
        return E(self.pick("0", "-1", "0", "-1", "i") if index else self.pick("'a'", "0", "'b'", "n"))


def _settled(text: str, *parts: Expression) -> Expression:
    """Make an expression that, if it awaits, is evaluated to its end by the compiler and leaves no call."""
    awaits = any(part.awaits for part in parts)
    return Expression(text, awaits=awaits, calls=not awaits and any(part.calls for part in parts))
