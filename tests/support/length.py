"""How much the long tests do: what every run has time for, or with ``--long`` what also finds rare faults."""

is_long = False


def length(usual: int, *, long: int) -> int:
    """Return how many of something a test is to have; asked while tests are collected, after the options are read."""
    return long if is_long else usual
