"""Cursors of the log."""

import pytest

from holdfast.events.recorded import Cursor


def test_a_cursor_survives_as_text() -> None:
    cursor = Cursor(2, 18446744073709551615, 9223372036854775807)
    assert Cursor.parse(str(cursor)) == cursor


def test_cursors_compare_as_the_log_is_read() -> None:
    assert Cursor(1, 9, 9) < Cursor(2, 1, 1) < Cursor(2, 10, 1) < Cursor(2, 10, 2)


@pytest.mark.parametrize("text", ["", "1", "1-2", "1-2-3-4", "1-2-x", "1--2", "1-2-", " 1-2-3", "1-2-²", "1_0-2-3"])
def test_what_is_no_cursor_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a cursor"):
        Cursor.parse(text)
