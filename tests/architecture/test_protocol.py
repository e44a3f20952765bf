"""The rows of `docs/protocol.md` are named by the tests that show them, in comments above these."""

import re

from tests.architecture.house import ROOT, python_files

WHERE = ("tests", "processor/testing/conformance")
ROW = re.compile(r"^\| ([CDI]\d+) \|", re.MULTILINE)
NAMED = re.compile(r"^# Protocol: ((?:[CDI]\d+, )*[CDI]\d+)\.\n(?:@.*\n|[ )].*\n)*(?:async )?def \w", re.MULTILINE)


def test_every_row_has_a_test_that_shows_it_and_no_test_names_another() -> None:
    rows = set(ROW.findall((ROOT / "docs" / "protocol.md").read_text()))
    named = {
        row for file in python_files(*WHERE) for rows in NAMED.findall(file.read_text()) for row in rows.split(", ")
    }
    assert named == rows


def test_every_such_comment_stands_above_a_test() -> None:
    astray = {
        file.relative_to(ROOT).as_posix()
        for file in python_files(*WHERE)
        if len(NAMED.findall(text := file.read_text())) != text.count("\n# Protocol: ")
    }
    assert astray == set()
