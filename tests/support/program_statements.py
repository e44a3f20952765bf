"""Random functions, statement by statement: control flow and errors of every kind around awaits."""

import ast
import itertools
from collections.abc import Callable, Sequence

from tests.support.program_calls import TRANSACTIONS, Calls, Routine
from tests.support.program_expressions import ANY, BOXES, LISTS, SCALARS, Choose, Expression, settle

Lines = list[str]

PARAMETERS = ("xs", "ys", "ds", "ss", "b", "m", "i", "n", "s")

BINDINGS = ("j, k = 1, 2", "z = xs", "c = Box(ys, b)", "err = Failure(0, load=xs)", "exc = KeyError(1)", "u = None")
"""What binds the other variables, unless it is left out."""

TARGETS = ("z", *SCALARS, *BOXES)
"""Variables that may be bound to anything."""

ALIASES = ("ys = xs", "xs = ys", "z = xs", "c = b", "b = Box(xs, ys)", "z = err", "z = (xs, ds)", "ys = [z, z]")

UNUSUAL = ("Failure", "(ValueError, SpecialFailure)", "TypeError", "LookupError", "NameError", "i", "Cancelled")
"""What else an ``except`` clause takes."""


class Writer:
    """Writes one function, statement by statement."""

    def __init__(self, choose: Choose, routines: Sequence[Routine]) -> None:
        self.choose = choose
        self.routines = routines
        self.expressions = Calls(choose, routines)
        self.pick, self.chance = self.expressions.pick, self.expressions.chance
        self.left = 8 + choose(20)
        self.loops = 0
        self.flat = True
        self.names = itertools.count(1)
        # What a function has more of than others do, so that rare things meet in one.
        self.compound: list[Callable[[int], Lines]] = []
        self.simple: list[Callable[[], Lines]] = []
        kinds = ["variety", "ways out", "errors", "changes", "expressions", "scopes", "compensation", "compensation"]
        if routines:
            kinds += ["calls", "compensation", "calls"]
        match self.pick(*kinds):
            case "variety":
                self.compound = [self._try]
                self.simple = [self._await, self._assign, self._assign, self._change]
            case "ways out":
                self.expressions.simple = True
                self.compound = [self._try, self._for, self._while, self._try] * 2
                self.simple = [self._leave, self._note, self._await, self._leave] * 4
            case "errors":
                self.compound = [self._try] * 10
                self.simple = [self._leave, self._await, self._note, self._leave] * 3
            case "changes":
                self.compound = [self._for, self._try]
                self.simple = [self._change, self._await, self._assign, self._change] * 3
            case "expressions":
                self.compound = [self._if, self._try]
                self.simple = [self._note, self._assign, self._unpack, self._augment] * 5
            case "scopes":
                self.expressions.simple = True
                self.compound = [self._scope, self._scope, self._try, self._for] * 2
                self.simple = [self._leave, self._await, self._note, self._call] * 4
            case "compensation":
                self.expressions.simple = True
                self.compound = [self._compensable, self._try, self._compensable] * 8
                self.simple = [self._await, self._call, self._leave, self._await, self._compensate] * 6
            case "calls":
                self.expressions.simple = True
                self.compound = [self._try] * 10
                self.simple = [self._call, self._await, self._leave, self._note, self._call] * 5

    def workflow(self) -> str:
        """Return the source of the workflow, ``w``."""
        lines = [line for line in BINDINGS if not self.chance(8)]
        # A number before each statement says whether there is one, so that Hypothesis can take single ones out.
        while self.left > 0 and self.choose(20):
            # Much that goes wrong is caught here, so that what follows is reached.
            lines += self._try(3) if self.pick(False, True, True) else self.statement(3)
        return self._function("w", ", ".join(PARAMETERS), lines)

    def routine(self, routine: Routine) -> str:
        """Return the source of a routine; like a loop it ends every run, however deep it calls itself."""
        signature = routine.signature
        self.left = 2 + self.choose(8)
        names = [name for name in (*ANY, "n", "s") if name not in signature.names and not self.chance(20)]
        lines = ["turn()", signature.prologue, f"{', '.join(names)} = given('{' '.join(names)}')"]
        while self.left > 0 and self.choose(8):
            lines += self.statement(2)
        return "@routine\n" + self._function(routine.name, signature.parameters, lines)

    def _function(self, name: str, parameters: str, lines: Lines) -> str:
        lines = [*lines, f"return {self.expressions.value()}"]
        text = "\n".join([f"async def {name}({parameters}):", *indented(lines)])
        return ast.unparse(ast.parse(text))

    def body(self, depth: int, *, flat: bool = False) -> Lines:
        """Write the body of a clause."""
        before, self.flat = self.flat, self.flat and flat
        lines: Lines = []
        for _ in range(3):
            if self.choose(4):
                lines += self.statement(depth - 1)
        self.flat = before
        return lines or ["pass"]

    def statement(self, depth: int) -> Lines:
        """Write one statement."""
        self.left -= 1
        if depth > 0 and self.left > 0 and self.chance(2):
            return self.pick(
                self._if, self._try, self._for, self._while, self._match, self._with, self._scope, *self.compound
            )(depth)
        simple = [
            self._note,
            self._await,
            self._await,
            self._assign,
            self._change,
            self._augment,
            self._unpack,
            self._wait,
            self._call,
            self._register,
            self._delete,
            self._leave,
            *self.simple,
        ]
        if self.flat:
            simple.append(self._define)
        return self.pick(*simple)()

    # Simple statements

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
            return [f"z = {call}", *self.statement(0), f"{target}await z"]
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

    # Compound statements

    def _if(self, depth: int) -> Lines:
        lines = [f"if {self.expressions.condition()}:", *indented(self.body(depth, flat=True))]
        for _ in range(self.pick(0, 0, 1)):
            lines += [f"elif {self.expressions.condition(1)}:", *indented(self.body(depth, flat=True))]
        return lines + self._else(depth)

    def _else(self, depth: int) -> Lines:
        return ["else:", *indented(self.body(depth))] if self.chance(2) else []

    def _loop(self, depth: int) -> Lines:
        self.loops += 1
        lines = self.body(depth)
        self.loops -= 1
        return ["turn()", *lines]

    def _while(self, depth: int) -> Lines:
        test = self.pick(str(self.expressions.condition()), "len(xs) < 6", "xs", "True")
        return [f"while {test}:", *indented(self._loop(depth)), *self._else(depth)]

    def _for(self, depth: int) -> Lines:
        draw = self.expressions
        kind = self.pick("live", "range", "pairs", "drawn", "other", "parts")
        target = self.pick(*SCALARS, "z")
        changes: Lines = []
        if kind == "range":
            walked = self.pick("range(3)", f"range({draw.scalar(1)})", "range(2, -1, -1)")
        elif kind == "pairs":
            target = self.pick("(s, z)", "z", "(k, *ys)", "(i, (j, k))")
            walked = self.pick("dict(ds).items()", "enumerate(xs[:3])", "zip(xs[:3], 'abc')")
        elif kind == "drawn":
            walked = str(draw.items())
        elif kind == "parts":
            target, walked = str(self._part()), self.pick("range(2)", "[xs, ys]")
        elif kind == "other":
            walked = self.pick(
                "sorted(ss)", "(q for q in xs[:3])", "'ab'", "reversed(xs[:3])", "tuple(xs)", "iter(xs[:2])", "(xs, ds)"
            )
        else:
            walked = self.pick("xs", "ys", "b.value", "m.items")
            change = self.pick(f"append({target})", "pop()", f"insert(0, {target})", "reverse()", "clear()")
            changes = [f"{walked}.{change}"]
        lines = self._loop(depth)
        place = self.pick(len(lines), 1)
        lines = [*lines[:place], *changes, *lines[place:]]
        return [f"for {target} in {walked}:", *indented(lines), *self._else(depth)]

    def _try(self, depth: int) -> Lines:
        lines = ["try:", *indented(self.body(depth))]
        if self.chance(3 if self.loops else 8):
            lines += indented(self._leave())
        handlers = self.pick(1, 1, 2, 0)
        for _ in range(handlers):
            kind = self.pick("Exception", "BaseException", self.pick(*UNUSUAL))
            name = self.pick("", " as err", " as exc", " as z")
            lines += [f"except {kind}{name}:", *indented(self.body(depth))]
        if handlers and self.chance(6):
            lines += ["except:", *indented(self.body(depth))]
        if handlers:
            lines += self._else(depth)
        if not handlers or self.chance(2):
            lines += ["finally:", *indented(self.body(depth))]
        return lines

    def _match(self, depth: int) -> Lines:
        draw = self.expressions
        subject = self.pick(draw.value, draw.items, draw.mapping, draw.scalar)(1)
        if not draw.native and draw.may_wait and self.chance(5):
            subject = draw.awaited(draw.first_of(1))
        lines = [f"match {subject}:"]
        for _ in range(self.pick(1, 2, 3)):
            pattern = self.pick(
                "1 | 2",
                "[i, *ys]",
                "[j, k]",
                "{'a': z}",
                "{'a': i, **ds}",
                "Box(value=z)",
                "Box(i, [j, *_])",
                "int(k)",
                "[_, [z, *_]] as xs",
                "(Failure() | ValueError()) as err",
                "None | 's'",
                "Outcome('one', z)",
                "Outcome(name='two')",
            )
            guard = ""
            if self.chance(2):
                pattern = self.pick(pattern, "k", "_", "z")
                guard = f" if {draw.condition()}"
            lines += indented([f"case {pattern}{guard}:", *indented(self.body(depth))])
        if self.chance(2):
            lines += indented([f"case {self.pick('_', 'k')}:", *indented(self.body(depth))])
        return lines

    def _with(self, depth: int) -> Lines:
        """Write a ``with``, which may await in its first context only."""
        value = self.expressions.value(1)
        with self.expressions.natively():
            contexts = self.pick(
                f"opened({value}) as z",
                f"opened({value}), suppress(Failure, LookupError)",
                "suppress(Exception), opened(k)",
                "suppress(ValueError), opened(i) as b.other",
                f"opened(({value}, 1)) as (i, j)",
            )
            return [f"with {contexts}:", *indented(self.body(depth))]

    def _scope(self, depth: int) -> Lines:
        """Write an ``async with`` of one or two scopes."""
        draw = self.expressions
        if draw.native:
            return self._if(depth)
        around = len(draw.scopes)
        items = [f"{draw.scope()}{self._as()}" for _ in range(self.pick(1, 1, 2))]
        lines = self._register() if "compensable" in draw.scopes[around:] else []
        lines += self.body(depth)
        if self.chance(3):
            lines += self._leave()
        del draw.scopes[around:]
        return [f"async with {', '.join(items)}:", *indented(lines)]

    def _register(self) -> Lines:
        """Tell a compensable scope what to call."""
        if "compensable" not in self.expressions.scopes and not self.chance(8):
            return self._await()
        return [self.expressions.action() for _ in range(self.pick(1, 1, 2))]

    def _compensable(self, depth: int) -> Lines:
        """Write a scope that can be undone, for the most part with something behind it whatever happens."""
        draw = self.expressions
        if draw.native or set(draw.scopes) & set(TRANSACTIONS):
            return self._try(depth)
        draw.scopes.append("compensable")
        draw.compensable = True
        lines = self._register() + self.body(depth) + self.pick([], self._leave())
        draw.scopes.pop()
        lines = ["async with compensable() as u:", *indented(lines)]
        clause = self.pick("", "except BaseException as err:", "finally:")
        return ["try:", *indented(lines), clause, *indented(self.body(depth))] if clause else lines

    def _compensate(self) -> Lines:
        draw = self.expressions
        return self._note() if draw.native else [f"await {draw.compensating(1)}"]

    def _as(self) -> str:
        if self.expressions.scopes[-1] == "compensable" and not self.chance(4):
            return " as u"
        target = self.pick("", "z", "b.other", "(i, *ys)", "part", "k")
        return f" as {self._part() if target == 'part' else target}" if target else ""


def indented(lines: Sequence[str]) -> Lines:
    """Move lines in by one level."""
    return [f"    {line}" for line in lines]
