"""Random statements that hold no others."""

import itertools
from collections.abc import Sequence

from tests.support.program_calls import Calls, Routine
from tests.support.program_expressions import ANY, BOXES, LISTS, SCALARS, Choose, Expression, settle

Lines = list[str]

TARGETS = ("z", *SCALARS, *BOXES)
"""Variables that may be bound to anything."""

ALIASES = ("ys = xs", "xs = ys", "z = xs", "c = b", "b = Box(xs, ys)", "z = err", "z = (xs, ds)", "ys = [z, z]")


class SimpleStatements:
    """Writes simple statements; ``loops`` counts those around."""

    def __init__(self, choose: Choose, routines: Sequence[Routine]) -> None:
        self.choose = choose
        self.expressions = Calls(choose, routines)
        self.pick, self.chance = self.expressions.pick, self.expressions.chance
        self.loops = 0
        self.names = itertools.count(1)

    def _note(self) -> Lines:
        value = self.expressions.value()
        return [self.pick("pass", f"note({value})", "handled()", f"note({value})", f"{value}", "boom()")]

    def _await(self) -> Lines:
        if self.expressions.native:
            return self._note()
        if self.chance(12):
            return [f"await {self.pick('i', 'z', 'None', 'boom()')}"]
        return [str(self.expressions.awaiting(self.pick("grow", "fail", "same", "number", "fresh"), 1))]

    def _wait(self) -> Lines:
        draw = self.expressions
        if draw.native:
            return self._assign()
        wait: Expression | str = f"await send(Ping(key='k', body={draw.scalar(1)}))"
        if draw.may_wait:
            wait = self.pick(
                draw.awaited(draw.receive(2)),
                draw.awaited(draw.first_of(2)),
                draw.awaited(draw.delay(2)),
                wait,
                "await checkpoint()",
            )
        return [self.pick(f"z = {wait}", f"{wait}")] * self.pick(1, 2)

    def _call(self) -> Lines:
        """Await a routine or a ``gather``, perhaps one that was made before."""
        draw = self.expressions
        if draw.native:
            return self._note()
        call = self.pick(draw.routine, draw.gather, draw.gather, draw.awaitable)(2)
        target = self.pick("z = ", "", "b.other = ", "xs[0] = ", "i, *ys = ", "return ")
        if self.chance(4):
            return [f"z = {call}", *self._await(), f"{target}await z"]
        return [f"{target}await {call}"]

    def _assign(self) -> Lines:
        draw = self.expressions
        kind = self.pick("scalar", "value", "items", "alias", "mapping", "text", "several", "annotated", "part", "set")
        if kind == "items":
            return [f"{self.pick(*LISTS)} = {draw.items()}"]
        if kind == "alias":
            return [self.pick(*ALIASES)]
        if kind == "mapping":
            return [f"ds = {draw.mapping()}"]
        if kind == "set":
            return [f"ss = {draw.numbers()}"]
        if kind == "text":
            return [f"s = {draw.text()}"]
        if kind == "several":
            value, target = settle(draw.value(), self._part())
            return [f"{self.pick(*SCALARS)} = {self.pick('z', 'b.other', str(target))} = {value}"]
        if kind == "annotated":
            return [f"{self.pick(*SCALARS)}: int = {draw.scalar()}"]
        if kind == "part":
            value, target = settle(draw.value(), self._part())
            return [f"{target} = {value}"]
        if kind == "scalar":
            return [f"{self.pick(*SCALARS)} = {draw.scalar()}"]
        return [f"{self.pick(*TARGETS)} = {draw.value()}"]

    def _unpack(self) -> Lines:
        draw = self.expressions
        first, second = settle(draw.value(1), draw.value(1))
        name, other = self.pick(*TARGETS), self.pick(*TARGETS)
        if self.chance(3):
            pair, target = settle(Expression(f"({first}, {second})", first.awaits or second.awaits, True), self._part())
            return [f"({target}, {name}) = {pair}"]
        return [
            self.pick(
                f"{name}, {other} = {first}, {second}",
                "xs, ys = ys, xs",
                f"{name}, *ys = {draw.items()}",
                f"({name}, ({other}, k)) = ({first}, {second})",
                f"[{name}, *{self.pick(*LISTS)}, {other}] = {draw.items()}",
            )
        ]

    def _part(self) -> Expression:
        """Write an item of a list or dict, to be assigned or deleted."""
        owner = self.pick("xs", "ds", "ys", "b.value")
        key = self.expressions.key(index=owner != "ds")
        return Expression(f"{owner}[{key}]", key.awaits, key.calls)

    def _augment(self) -> Lines:
        draw = self.expressions
        kind = self.pick("scalar", "items", "attribute", "part", "set", "mapping")
        if kind == "items":
            value = draw.slice(1) if self.chance(2) else f"[{draw.value(1)}]"
            return [f"{self.pick('xs', 'ys', 'b.value', 'z', 'm.items')} += {value}"]
        if kind == "set":
            return [f"ss {self.pick('|', '&', '-')}= {draw.numbers()}"]
        if kind == "mapping":
            return [f"ds |= {draw.mapping(1)}"]
        if kind == "part":
            part, scalar = settle(self._part(), draw.scalar())
            return [f"{part} {self.pick('+', '-')}= {scalar}"]
        target = self.pick(*SCALARS) if kind == "scalar" else self.pick("b.other", "c.value", "m.owner")
        return [f"{target} {self.pick('+', '-', '%')}= {draw.scalar()}"]

    def _change(self) -> Lines:
        """Change something in place."""
        draw = self.expressions
        owner = self.pick("xs", "ys", "b.value", "z", "m.items", "ds['a']", "c.value")
        value = draw.value(1)
        return [
            self.pick(
                f"{owner}.append({value})",
                f"{owner}.insert(0, {value})",
                f"{self.pick('b.value', 'b.other', 'c.value', 'm.owner', 'z.other', 'err.load')} = {value}",
                f"{owner}.extend({draw.slice(1)})",
                f"{owner}.{self.pick('pop', 'reverse', 'clear')}()",
                "xs.sort(key=lambda q: str(type(q)))",
                f"ds.update({draw.mapping(1)})",
                f"z = ds.{self.pick('setdefault', 'get', 'pop')}({self.pick('0', repr('b'), repr('c'))}, {value})",
                f"ss.{self.pick('add', 'discard')}({draw.scalar(1)} % 8)",
                f"{self.pick('xs', 'ys')}[1:2] = {draw.slice(1)}",
                "err.add_note(s[:9])",
            )
        ]

    def _delete(self) -> Lines:
        if self.chance(2):
            return [f"del {self._part()}"]
        return [f"del {self.pick(*SCALARS, 'z', 'c', 'err', '(i, xs[0])', 'j, z')}"]

    def _define(self) -> Lines:
        """Define something that is used up at once."""
        name = f"f{next(self.names)}"
        read = self.pick(*ANY)
        return self.pick(
            [f"def {name}(q, r=n):", f"    return (q, r, {read})", f"z = {name}(1)"],
            [f"class {name}(Box):", f"    held = {read}", f"z = {name}.held"],
            ["import math", f"k = math.floor({self.expressions.scalar(1)})"],
        )

    def _leave(self) -> Lines:
        draw = self.expressions
        kinds = ["raise", "assert", "raise", "return"]
        if self.loops:
            kinds += ["break", "continue"] * 3
        kind = self.pick(*kinds)
        if kind == "return":
            return [self.pick(f"return {draw.value()}", "return")]
        if kind == "assert":
            return [f"assert {draw.condition()}, {draw.value(1)}"]
        if kind == "raise":
            value, cause = settle(draw.value(1), Expression(self.pick("err", "exc", "z", "None", "Failure(0)", "i")))
            calls = f"{self.pick('Failure', 'SpecialFailure', 'ValueError', 'StopIteration')}({value})"
            return [
                self.pick(
                    "raise",
                    f"raise {calls}",
                    f"raise {self.pick('err', 'exc', 'z', 'KeyError', 'i')}",
                    f"raise Failure(1, load={value})",
                    f"raise {self.pick('err', 'exc', 'z', 'KeyError')} from {cause}",
                    f"raise {self.pick('err', 'exc', 'z', 'KeyError')} from {draw.value(1)}",
                )
            ]
        return [kind]

    def _register(self) -> Lines:
        """Tell a compensable scope what to call."""
        if "compensable" not in self.expressions.scopes and not self.chance(8):
            return self._await()
        return [self.expressions.action() for _ in range(self.pick(1, 1, 2))]

    def _compensate(self) -> Lines:
        draw = self.expressions
        return self._note() if draw.native else [f"await {draw.compensating(1)}"]
