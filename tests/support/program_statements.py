"""Random functions, statement by statement: control flow and errors of every kind around awaits."""

import ast
from collections.abc import Callable, Sequence

from tests.support.program_calls import TRANSACTIONS, Routine
from tests.support.program_expressions import ANY, SCALARS, Choose
from tests.support.program_simple_statements import Lines, SimpleStatements

PARAMETERS = ("xs", "ys", "ds", "ss", "b", "m", "i", "n", "s")

BINDINGS = ("j, k = 1, 2", "z = xs", "c = Box(ys, b)", "err = Failure(0, load=xs)", "exc = KeyError(1)", "u = None")
"""What binds the other variables, unless it is left out."""

UNUSUAL = ("Failure", "(ValueError, SpecialFailure)", "TypeError", "LookupError", "NameError", "i", "Cancelled")
"""What else an ``except`` clause takes."""


class Writer(SimpleStatements):
    """Writes one function, statement by statement."""

    def __init__(self, choose: Choose, routines: Sequence[Routine]) -> None:
        super().__init__(choose, routines)
        self.left = 8 + choose(20)
        self.flat = True
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

    def _as(self) -> str:
        if self.expressions.scopes[-1] == "compensable" and not self.chance(4):
            return " as u"
        target = self.pick("", "z", "b.other", "(i, *ys)", "part", "k")
        return f" as {self._part() if target == 'part' else target}" if target else ""


def indented(lines: Sequence[str]) -> Lines:
    """Move lines in by one level."""
    return [f"    {line}" for line in lines]
