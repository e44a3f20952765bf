"""Programs as data: stored, read again, signed, and the same on every Python."""

import json
import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import orjson
import pytest

from holdfast.processor.core.machine import ROOT, Machine
from holdfast.processor.core.outcomes import Returned
from holdfast.processor.language.awaitables import ActivityCall, Enter, Leave, NoPersist, TransactionScope
from holdfast.processor.language.compiler import compile_workflow
from holdfast.processor.language.program import Program
from holdfast.schemas.errors import ProgramUnresolvable
from tests.support.twin import compare
from tests.unit.language import golden_scopes, golden_workflow
from tests.unit.language.golden_workflow import golden
from tests.unit.language.test_refusals import define

TOP = Path(__file__).parents[3]
GOLDEN = TOP / "tests" / "golden" / "programs" / "v1.json"


def run(program: Program, **arguments: Any) -> tuple[Any, list[tuple[Any, ...]]]:
    """Answer each await with 1 and return the outcome and what was awaited."""
    machine = Machine.start(program, arguments)
    awaited = []
    while asks := machine.advance():
        (ask,) = asks
        assert isinstance(ask.awaited, ActivityCall)
        awaited.append((ask.line, ask.awaited.args))
        machine.answer(ROOT, Returned(1))
    return machine.outcome, awaited


def test_program_of_version_1_still_runs() -> None:
    stored = json.loads(GOLDEN.read_text())
    program = Program.from_json(stored["program"], vars(golden_workflow))
    assert program.hash == stored["hash"]
    assert program.to_json() == stored["program"]
    assert program.unresolved(vars(golden_workflow)) == []
    outcome, awaited = run(program, items=[5, -1], fail=False)
    assert outcome == Returned(2)
    assert awaited == [
        (17, (5,)),
        (15, ("skip", -1)),
        (17, (-1,)),
        (22, ("all",)),
        (31, ("clean", {"a": 1, "bc": 2})),
    ]
    outcome, _ = run(program, items=[7], fail=True)
    assert repr(outcome) == r"Returned(value=(-0.0, [2j, b'\xff', Ellipsis], ['  7|1\x00\ud800']))"


def test_program_of_version_1_with_scopes_still_runs() -> None:
    stored = json.loads((GOLDEN.parent / "v1_scopes.json").read_text())
    program = Program.from_json(stored["program"], vars(golden_scopes))
    assert program.hash == stored["hash"] == compile_workflow(golden_scopes.golden_scopes, name="golden_scopes").hash
    machine = Machine.start(program, {"items": [-1, 5]})
    seen = []
    while asks := machine.advance():
        (ask,) = asks
        seen.append((ask.line, ask.awaited))
        machine.answer(ROOT, Returned(1) if isinstance(ask.awaited, ActivityCall) else Returned())
    scopes = TransactionScope(), NoPersist()
    entered = [(12, Enter(scope)) for scope in scopes]
    left = [(12, Leave(scope)) for scope in reversed(scopes)]
    assert seen == [*entered, *left, *entered, (15, ActivityCall("act", (5,))), *left]
    assert machine.outcome == Returned(None)


@pytest.mark.parametrize("fail", [True, False])
def test_the_golden_workflow_runs_as_in_python(fail: bool) -> None:  # noqa: FBT001 - given by pytest
    compare(golden, {"items": [3, -4, 5], "fail": False}, lambda number, _: Returned(number % 2))


def test_hash_does_not_depend_on_place_or_name_of_the_file() -> None:
    source = "async def w(x):\n    return f'{x}' + await act(x)"
    moved = "\n\n\n# moved\n" + source.replace("x)", "x  )")
    first, second = (compile_workflow(define(text), name="w") for text in (source, moved))
    assert first.file != second.file
    assert first.line != second.line
    assert first.hash == second.hash


@pytest.mark.parametrize(
    "other",
    [
        "async def w(x):\n    return x + await act(2)",
        "async def w(x):\n    return x - await act(1)",
        "async def w(x):\n    return await act(1) + x",
        "async def w(y):\n    return y + await act(1)",
        "async def w(x):\n    return x + await act(1.0)",
        "async def w(x):\n    return x + await act(True)",
    ],
)
def test_hash_depends_on_what_the_function_does(other: str) -> None:
    source = "async def w(x):\n    return x + await act(1)"
    assert compile_workflow(define(source), name="w").hash != compile_workflow(define(other), name="w").hash


HASHES = """
import json, sys, types
sys.path.insert(0, sys.argv[1])
# The compiler needs nothing but Python; what the corpus takes from the harness it needs only to run.
harness = types.ModuleType("tests.support.twin")
harness.act = harness.note = None
sys.modules[harness.__name__] = harness
from holdfast.processor.language.compiler import compile_workflow
from tests.unit.language.corpus import cases, exceptions, expressions, loops, matching, scopes
functions = [function for function, _ in cases(expressions, loops, exceptions, matching, scopes)]
print(json.dumps({function.__name__: compile_workflow(function, name="twin").hash for function in functions}))
"""


def hashes(python: str) -> dict[str, str]:
    """Compile the corpus under a Python."""
    done = subprocess.run([python, "-c", HASHES, str(TOP)], capture_output=True, text=True, check=True)
    found: dict[str, str] = json.loads(done.stdout)
    return found


def other_pythons() -> list[str]:
    """Find Pythons of other versions on the path, or kept by pyenv."""
    kept = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found = []
    for minor in range(11, 20):
        paths = [shutil.which(f"python3.{minor}"), *map(str, sorted(kept.glob(f"3.{minor}.*/bin/python")))]
        for path in paths if minor != sys.version_info.minor else ():
            # What a version manager puts on the path may only say that the version is not switched on.
            if path and subprocess.run([path, "--version"], capture_output=True, check=False).returncode == 0:
                found.append(path)
                break
    return found


def test_hash_is_the_same_on_every_python() -> None:
    pythons = other_pythons()
    if not pythons:
        pytest.skip("this machine has no other Python to compare with")
    here = hashes(sys.executable)
    assert len(set(here.values())) == len(here)
    for python in pythons:
        assert hashes(python) == here, python


def test_restored_program_needs_no_source_of_its_own() -> None:
    function = define("async def w(x):\n    y = await act(x)\n    return y + offset", offset=5)
    stored = orjson.dumps(compile_workflow(function, name="w").to_json())
    restored = Program.from_json(orjson.loads(stored)).linked({"act": function.__globals__["act"], "offset": 10})
    assert run(restored, x=1)[0] == Returned(11)


def test_missing_names_are_told_before_anything_runs() -> None:
    source = "async def w(x):\n    y = [later(i) for i in x if len(x)]\n    return await act(y, lambda z: z + helper)"
    program = compile_workflow(define("\n" + source), name="w")
    assert program.unresolved({"act": None}) == ["helper", "later"]
    assert program.unresolved({"act": None, "later": None, "helper": None}) == []


def test_annotations_that_python_does_not_evaluate_need_no_names() -> None:
    source = "async def w(x):\n    def f(y: Missing) -> Missing: return y\n    z: Gone = f(x)\n    return await act(z)"
    lazy = compile_workflow(define("from __future__ import annotations\n" + source), name="w")
    assert lazy.unresolved({"act": None}) == []
    assert run(lazy, x=4)[0] == Returned(1)
    eager = compile_workflow(define(source), name="w")
    assert eager.unresolved({"act": None}) == ["Missing"]


def test_code_that_python_warned_about_is_linked_in_silence() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        function = define("async def w(x):\n    y = x is 'text'\n    return await act(y)")
    assert run(compile_workflow(function, name="w"), x=4)[1] == [(3, (False,))]


def test_unlinked_program_does_not_run() -> None:
    program = Program.from_json(compile_workflow(golden, name="golden").to_json())
    with pytest.raises(ProgramUnresolvable, match="not linked to its module"):
        Machine.start(program, {})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "has format 2, this version reads format 1"),
        ({"steps": None}, "cannot be read"),
    ],
)
def test_unreadable_program_is_refused(change: dict[str, Any], message: str) -> None:
    data = compile_workflow(golden, name="golden").to_json() | change
    with pytest.raises(ProgramUnresolvable, match=message):
        Program.from_json(data)


def test_program_with_unknown_syntax_is_refused() -> None:
    data = compile_workflow(golden, name="golden").to_json()
    data["blocks"][0] = {**data["blocks"][0], "body": [{"_": "Teleport"}]}
    program = Program.from_json(data, {})
    with pytest.raises(ProgramUnresolvable, match="no syntax node 'Teleport'"):
        Machine.start(program, {})


def test_signature_covers_the_whole_program() -> None:
    program = compile_workflow(golden, name="golden")
    signature = program.sign(b"key")
    assert Program.from_json(orjson.loads(orjson.dumps(program.to_json()))).verify(b"key", signature)
    assert not program.verify(b"other key", signature)
    assert not program.verify(b"key", signature[:-1] + bytes([signature[-1] ^ 1]))
    for field in ("file", "line", "module", "name", "names", "steps", "blocks"):
        changed = program.to_json()
        changed[field] = [] if isinstance(changed[field], list) else 7
        assert not Program.from_json(changed).verify(b"key", signature), field
