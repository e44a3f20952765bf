"""The laws about who may import whom; most of them stand in pyproject.toml, under tool.importlinter."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import grimp
import pytest

from tests.architecture.house import PARTS, ROOT, python_files

OPEN_A_TRANSACTION = {
    "processor/client.py",
    "processor/control.py",
    "processor/exporting/exports.py",
    "processor/following.py",
    "processor/forking.py",
    "processor/migrating.py",
    "processor/services/as_of.py",
    "processor/services/follower.py",
    "processor/services/projector.py",
    "processor/services/replay_into.py",
    "processor/store/commit.py",
    "processor/store/locks.py",
    "processor/store/memory.py",
    "processor/store/unit_of_work.py",
    "processor/testing/world.py",
    "schemas/postgres/migrate.py",
}
"""All others write into the transaction of their caller, whose connection is their first argument."""

CLOCKS_AND_DICE = {"now", "today", "utcnow", "uuid1", "uuid4", "uuid6", "uuid7", "urandom"}


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return grimp.build_graph("holdfast", cache_dir=None)


@pytest.fixture(scope="module")
def pure_modules(graph: grimp.ImportGraph) -> set[str]:
    configuration = tomllib.loads((ROOT / "pyproject.toml").read_text())
    contracts = configuration["tool"]["importlinter"]["contracts"]
    (sources,) = [contract["source_modules"] for contract in contracts if contract["id"] == "pure"]
    return set(sources).union(*(graph.find_descendants(source) for source in sources))


def test_every_contract_is_kept() -> None:
    linter = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([linter, "--no-logo", "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_pure_modules_import_pure_modules_only(graph: grimp.ImportGraph, pure_modules: set[str]) -> None:
    impure = {
        f"{module} imports {imported}"
        for module in pure_modules
        for imported in graph.find_modules_directly_imported_by(module) - pure_modules
    }
    assert impure == set()


def test_every_module_of_schemas_is_pure_but_those_of_postgres(
    graph: grimp.ImportGraph, pure_modules: set[str]
) -> None:
    shell = {"holdfast.schemas.postgres"} | graph.find_descendants("holdfast.schemas.postgres")
    assert graph.find_descendants("holdfast.schemas") - shell == pure_modules & graph.find_descendants(
        "holdfast.schemas"
    )


def test_pure_modules_ask_no_clock_and_roll_no_dice(pure_modules: set[str]) -> None:
    # The modules that have a clock or dice of their own are kept out by contract; these are methods and functions of
    # modules that also hold plain types.
    asked = set()
    for module in pure_modules:
        place = ROOT.joinpath(*module.split(".")[1:])
        file = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call):
                name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
                if name in CLOCKS_AND_DICE and module != "holdfast.schemas.identifiers":
                    asked.add(f"{file.relative_to(ROOT)}:{node.lineno} calls {name}")
    assert asked == set()


def test_only_the_named_modules_open_a_transaction() -> None:
    opening = {
        file.relative_to(ROOT).as_posix()
        for file in python_files(*PARTS)
        for node in ast.walk(ast.parse(file.read_text()))
        if opens_a_transaction(node)
    }
    assert opening == OPEN_A_TRANSACTION


def opens_a_transaction(node: ast.AST) -> bool:
    """Tell whether this is a call of `….transaction()`, the statement named `begin`, or a connection as a block."""
    match node:
        case ast.Call(func=ast.Attribute(attr="transaction")) | ast.Subscript(slice=ast.Constant(value="begin")):
            return True
        case ast.With(items=items):
            return any(ast.unparse(item.context_expr).startswith("psycopg.connect(") for item in items)
        case _:
            return False
