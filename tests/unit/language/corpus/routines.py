"""Routines: calls, recursion, and exceptions on their way from frame to frame."""

import contextlib
import sys
from typing import Any

from pydantic import TypeAdapter, ValidationError

from holdfast.processor.language.routine import routine
from tests.support.twin import act, note
from tests.unit.language.corpus import Box, Counted, boom, case


@routine
async def doubled(x: Any) -> Any:
    y = await act(x)
    return [x, y]


@routine
async def validating() -> None:
    await act()
    # It is raised by code that is not Python, which does not see what is being handled.
    TypeAdapter(int).validate_python("none")


@routine
async def without_await(x: Any) -> Any:
    return note(x)


@routine
async def nothing() -> None:
    pass


@routine(name="the signature")
async def bound(a: Any, /, b: Any = 2, *rest: Any, c: Any, d: Any = 4, **others: Any) -> Any:
    note(list(map(lambda item: (item, a, rest), [b])))  # noqa: C417 - the lambda makes the parameters cells
    await act(a, b)
    return a, b, rest, c, d, others


@routine
async def factorial(n: int) -> int:
    if n <= 1:
        await act(n)
        return 1
    return n * await factorial(n - 1)


@routine
async def is_even(n: int) -> bool:
    return True if n == 0 else await is_odd(n - 1)


@routine
async def is_odd(n: int) -> bool:
    return False if n == 0 else await is_even(await act(n) * 0 + n - 1)


@routine
async def cleaning(x: Any) -> Any:
    try:
        return await act("try", x)
    finally:
        note(sys.exc_info()[1])
        await act("finally", x)


@routine
async def raising(x: Any) -> Any:
    await act(x)
    raise Counted(x)


@routine
async def raising_from(x: Any) -> Any:
    try:
        boom(x)
    except Counted as error:
        await act(x)
        raise KeyError(x) from error


@routine
async def stopping() -> None:
    await act()
    raise StopIteration(3)


@routine
async def asking_what_is_handled() -> Any:
    note(repr(sys.exc_info()[1]))
    await act()
    note(repr(sys.exc_info()[1]))
    try:
        raise  # noqa: PLE0704 - the caller handles an exception
    except Counted as error:
        return repr(error)


@routine
async def changing(box: Box, items: list[Any]) -> Box:
    box.value = await act(len(items))
    items.append(box)
    return box


@case({"x": 1})
async def calls(x: Any) -> Any:
    first = await doubled(x)
    second = await doubled(first)
    note(await without_await(x))
    await nothing()
    return first, second, await without_await(second)


@case({"x": 1})
async def call_inside_of_expressions(x: Any) -> Any:
    return [await doubled(x), (await doubled(2))[1] or await without_await(0), f"{await doubled(3)}"]


@case({"x": 5})
async def arguments_of_every_kind(x: Any) -> Any:
    first = await bound(x, c=3)
    second = await bound(x, 1, 2, 3, c=4, d=5, e=6)
    return first, second, await bound(*[x, 7], **dict.fromkeys("ca", 8))


@case({"x": 5})
async def arguments_that_do_not_fit(x: Any) -> Any:
    errors = []
    for arguments in ({}, {"c": 1, "b": 2, "a": x}):
        try:
            await bound(**arguments)  # type: ignore[call-arg] # to see how it is refused
        except TypeError as error:
            errors.append(str(error))
            await act(error)
    await doubled(x, x)  # type: ignore[call-arg] # to see how it is refused
    return errors


@case({"n": 0}, {"n": 4})
async def recursion(n: int) -> Any:
    return await factorial(n), await is_even(n)


@case({"x": 1})
async def exceptions_cross_frames(x: Any) -> Any:
    try:
        await cleaning(x)
        await raising(x)
    except Counted as error:
        note(error.args)
        await raising_from(error.args)


@case({"x": 1})
async def exceptions_of_a_call_while_handling(x: Any) -> Any:
    try:
        boom("first")
    except Counted:
        try:
            await raising(x)
        except Counted as error:
            note(repr(error.__context__))
            await raising_from(x)


@case()
async def what_is_handled_is_seen_by_who_is_called() -> Any:
    try:
        boom(1)
    except Counted:
        note(await asking_what_is_handled())
    with contextlib.suppress(RuntimeError):
        note(1)
    return await asking_what_is_handled()


@case({"x": 1})
async def ways_out_through_finally(x: Any) -> Any:
    for i in range(3):
        try:
            if i == 1:
                continue
            note(await cleaning(i))
            if i == 2:
                return await doubled(i)
        finally:
            note(await doubled([x, i]))
    return None


@case()
async def an_error_without_context() -> Any:
    context = None
    try:
        boom(await act())
    except Counted:
        try:
            await validating()
        except ValidationError as error:
            context = repr(error.__context__)
    return await act(context)


@case()
async def stop_iteration() -> Any:
    try:
        await stopping()
    except RuntimeError as error:
        return await act(repr(error), repr(error.__cause__))


@case({"box": Box(1), "items": []})
async def objects_are_shared(box: Box, items: list[Any]) -> Any:
    same = await changing(box, items)
    await act()
    await changing(same, items)
    return same is box, items[0] is items[1] is box, items
