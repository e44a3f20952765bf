"""The workflow of the golden program, with something of everything that a program can hold."""

from typing import Any

from tests.support.twin import act, note

RATE = 3


async def golden(items: list[int], fail: bool = False) -> Any:  # noqa: FBT001, FBT002 - a flag is the simplest argument
    """Walk, wait, fail and clean up."""
    total, seen = 0, []
    try:
        for item in items:
            if item < 0 and not await act("skip", item):
                continue
            total += await act(item, rate=RATE)
            seen.append(f"{item:>3}|{total!r}\0\ud800")  # Text that JSON cannot hold as it is.
            if total > 1 << 70:
                break
        else:
            note(await act("all"))
        if fail:
            raise ValueError(-0.0, 2j, b"\xff", ...)  # noqa: TRY301 - and where it is raised is where it is caught
    except (ValueError, KeyError) as error:
        match error.args:
            case (first, *rest) if await act("guard"):
                return first, rest, seen
        raise
    finally:
        note(await act("clean", {name: len(name) for name in ("a", "bc")}))
    return total
