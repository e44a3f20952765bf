"""Which element of a new sequence an element of an old one has become, if that is beyond doubt.

Two versions of a list are compared as ``diff`` compares files: by their longest common subsequences. There may be
several of these. An old element has become a new one only if every longest common subsequence pairs the two.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence


def successors(old: Sequence[Hashable], new: Sequence[Hashable]) -> list[int | None]:
    """Return for each old element the index of the new one that it has become; None if that is in doubt, or gone.

    Takes time and room in proportion to the product of both lengths.
    """
    rows, columns = len(old), len(new)
    before = [[0] * (columns + 1) for _ in range(rows + 1)]
    behind = [[0] * (columns + 1) for _ in range(rows + 1)]
    for i in range(rows):
        for j in range(columns):
            same = old[i] == new[j]
            before[i + 1][j + 1] = before[i][j] + 1 if same else max(before[i][j + 1], before[i + 1][j])
    for i in reversed(range(rows)):
        for j in reversed(range(columns)):
            same = old[i] == new[j]
            behind[i][j] = behind[i + 1][j + 1] + 1 if same else max(behind[i + 1][j], behind[i][j + 1])
    length = before[rows][columns]
    found: list[int | None] = []
    for i in range(rows):
        pairs = [j for j in range(columns) if old[i] == new[j] and before[i][j] + 1 + behind[i + 1][j + 1] == length]
        can_be_left_out = any(before[i][j] + behind[i + 1][j] == length for j in range(columns + 1))
        found.append(pairs[0] if len(pairs) == 1 and not can_be_left_out else None)
    return found
