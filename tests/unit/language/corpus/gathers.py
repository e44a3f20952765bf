"""``gather``: results in order, the first exception, and what becomes of the other branches."""

import sys
from typing import Any

from holdfast.processor.language.gather import gather
from holdfast.processor.language.routine import routine
from holdfast.schemas.errors import Cancelled
from tests.support.twin import act, note
from tests.unit.language.corpus import Box, Counted, boom, case


@routine
async def three(x: Any) -> Any:
    note(("begins", x))
    results = []
    for i in range(3):
        note(i)
        results.append(await act(x, i))
    return x, results


@routine
async def at_once(x: Any) -> Any:
    return note(x)


@routine
async def raising_at_once(x: Any) -> Any:
    raise Counted(x)


@routine
async def raising_later(x: Any) -> Any:
    await act(x)
    raise Counted(x)


@routine
async def cleaning(x: Any) -> Any:
    try:
        await act("try", x)
        await act("again", x)
    except Cancelled as error:
        note(("cancelled", x, repr(error.__context__), repr(sys.exc_info()[1])))
        await act("cleaning", x)
        raise
    finally:
        note(("ends", x))
    return x


@routine
async def going_on(x: Any) -> Any:
    try:
        await act("try", x)
    except Cancelled:
        return await act("goes on", x)
    return x


@routine
async def failing_when_cancelled(x: Any) -> Any:
    try:
        await act("try", x)
    finally:
        await act("finally", x)
        boom("cleaning failed", x)


@routine
async def nested(x: Any) -> Any:
    try:
        return await gather(cleaning([x, 1]), act("between", x), going_on([x, 2]))
    except Counted as error:
        note(repr(error))
        raise KeyError(x) from error
    finally:
        await act("nested ends", x)


@routine
async def calling(x: Any) -> Any:
    return await cleaning(x)


@routine
async def asking_what_is_handled() -> str:
    await act()
    return repr(sys.exc_info()[1])


@case({"x": 1})
async def results_in_order(x: Any) -> Any:
    a, b, c = await gather(act(x), three(x), at_once(2))
    note((a, b, c))
    return await gather(three("a"), three("b"), three("c"))


@case()
async def of_nothing() -> Any:
    return await gather()


@case({"items": [3, 1]})
async def any_number(items: list[Any]) -> Any:
    calls = [at_once(item) for item in items]
    results = await gather(*calls)
    del calls  # Python's are coroutines, which are used up.
    return results, await gather(*[act(item) for item in items])


@case({"x": 1})
async def first_exception(x: Any) -> Any:
    try:
        return await gather(cleaning(x), act("alone"), raising_later(2), going_on(3))
    except Counted as error:
        return await act(repr(error))


@case({"x": 1})
async def failing_before_anything_waits(x: Any) -> Any:
    try:
        await gather(raising_at_once(x), cleaning(1), act("never"), raising_at_once(2))
    finally:
        note(repr(sys.exc_info()[1]))


@case({"x": 1})
async def failing_while_cancelled(x: Any) -> Any:
    try:
        await gather(failing_when_cancelled(1), raising_later(2), failing_when_cancelled(3))
    except Counted as error:
        return error.args, await act(x), error.__notes__


@case({"x": 1})
async def inside_of_each_other(x: Any) -> Any:
    try:
        note(await gather(nested("a"), nested("b")))
        return await gather(nested("c"), raising_later(x), calling("d"))
    except (Counted, KeyError, ValueError) as error:
        return await act(repr(error), repr(error.__context__))


@case({"x": 1})
async def while_something_is_handled(x: Any) -> Any:
    try:
        boom("first")
    except Counted:
        note(await gather(asking_what_is_handled(), act(x)))
        await gather(raising_later(x), cleaning(2))


@case({"x": 1})
async def through_finally(x: Any) -> Any:
    for i in range(2):
        try:
            if await gather(act(i), at_once(x)):
                continue
        finally:
            note(await gather(cleaning(i), act("out")))
    return i


@case({"box": Box([])})
async def branches_share_objects(box: Box) -> Any:
    await gather(filling(box, "a"), filling(box, "b"))
    return box


@routine
async def filling(box: Box, name: str) -> None:
    for i in range(2):
        box.value.append((name, i, await act(name)))


@case({"x": 1})
async def what_cannot_be_gathered(x: Any) -> Any:
    try:
        await gather(act(x), x)
    except TypeError as error:
        return await act(str(error))
