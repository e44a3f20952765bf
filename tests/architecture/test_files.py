"""Facts about the files themselves."""

import re
import statistics

from tests.architecture.house import BESIDE, PARTS, ROOT, python_files

EXCUSE = re.compile(r"#\s*(type:\s*ignore|noqa|pragma)\b")
CODE = r"#\s*(type: ignore\[[a-z, -]+\]|noqa: [A-Z]+[0-9]+(, [A-Z]+[0-9]+)*)"


def test_no_file_is_longer_than_500_lines() -> None:
    long = {
        f"{file.relative_to(ROOT)} has {lines} lines"
        for file in python_files("holdfast", *PARTS, *BESIDE)
        if (lines := len(file.read_text().splitlines())) > 500
    }
    assert long == set()


def test_the_median_file_is_read_in_one_go() -> None:
    lengths = [len(file.read_text().splitlines()) for file in python_files(*PARTS) if file.name != "__init__.py"]
    assert statistics.median(lengths) <= 180


def test_every_excuse_names_what_it_excuses() -> None:
    assert unexcused(CODE, "holdfast", *PARTS, *BESIDE) == set()


def test_every_excuse_has_its_reason_beside_it() -> None:
    # A test that hands over a wrong type, to see it refused, is its own reason.
    assert unexcused(CODE + r"\W+\w+", "holdfast", *PARTS, "compose", "requirements") == set()


def unexcused(pattern: str, *folders: str) -> set[str]:
    """Give the lines that silence a checker otherwise than by the pattern."""
    return {
        f"{file.relative_to(ROOT)}:{number}"
        for file in python_files(*folders)
        for number, line in enumerate(file.read_text().splitlines(), 1)
        if EXCUSE.search(line) and not re.search(pattern, line) and "re.compile" not in line
    }


def test_the_parts_are_links_of_the_import_package() -> None:
    for part in PARTS:
        assert (ROOT / "holdfast" / part).readlink().as_posix() == f"../{part}"
