"""Awaits around errors, and what happens to them."""

# These functions show what users may write, right or wrong, not how this project writes.
# mypy: ignore-errors
# ruff: noqa: B012, B018, B030, B904, BLE001, F821, F841, PLC0415, PLE0704, PT018, TRY301
from typing import Any

from tests.support.twin import act, note
from tests.unit.language.corpus import Counted, boom, case


@case({"x": 1}, {"x": 0})
async def caught(x: Any) -> Any:
    try:
        y = await act(1) / x
    except (ZeroDivisionError, ValueError) as error:
        note(type(error).__name__)
        y = await act(str(error))
    except KeyError:
        y = await act("key")
        raise
    else:
        y += await act("else")
    try:
        error
    except UnboundLocalError as unbound:
        note(str(unbound))
    return y


@case({"x": 1}, {"x": 0})
async def finals(x: Any) -> Any:
    try:
        try:
            note(await act(1))
            if not x:
                raise Counted("x")
        finally:
            await act("inner finally")
            note("inner done")
    except Counted as error:
        await act(error.args)
        return "counted"
    finally:
        await act("outer finally")
    return "end"


@case({"way": "return"}, {"way": "break"}, {"way": "continue"}, {"way": "raise"}, {"way": "fall"})
async def ways_through_finally(way: Any) -> Any:
    log = []
    for i in range(2):
        try:
            try:
                log.append(await act(i))
                if way == "return":
                    return log
                if way == "break":
                    break
                if way == "continue":
                    continue
                if way == "raise":
                    raise Counted(way)
            finally:
                log.append("inner")
                await act("inner")
        except Counted as error:
            log.append(await act("handled"))
            if i:
                raise KeyError("again") from error
        finally:
            log.append("outer")
            await act("outer")
    else:
        log.append("else")
    log.append("end")
    return log


@case({"way": "return"}, {"way": "break"}, {"way": "continue"}, {"way": "raise"}, {"way": "fall"})
async def finally_overrides(way: Any) -> Any:
    i = 0
    while i < 3:
        i += 1
        try:
            await act(i)
            if i == 2:
                return "tried"
            raise Counted(i)
        finally:
            await act("finally")
            if way == "return":
                return "final"
            if way == "break":
                break
            if way == "continue":
                continue
            if way == "raise":
                raise KeyError(i)
    return i


@case({"deep": True}, {"deep": False})
async def abandoned_return(deep: Any) -> Any:
    try:
        return await act("first")
    finally:
        while True:
            try:
                if deep:
                    return await act("second")
                break
            finally:
                await act("give up")
                break
        note("left")


@case({"x": 1})
async def chains(x: Any) -> Any:
    try:
        try:
            raise Counted("one")
        except Counted:
            await act(1)
            try:
                boom("two")
            except Counted as second:
                await act(2)
                raise KeyError("three") from ValueError("cause")
            finally:
                await act(3)
    except KeyError as third:
        await act(third.__context__.args)
        try:
            raise RuntimeError("four") from None
        except RuntimeError as fourth:
            await act(4)
            kept = fourth
    try:
        raise kept
    except RuntimeError:
        await act(5)
        boom("six", kept)


@case()
async def bare_raise() -> Any:
    try:
        boom("a")
    except Counted:
        try:
            await act(1)
            boom("b")
        except Counted:
            await act(2)
        try:
            raise
        except Counted as error:
            note(error.args)
            await act(3)
        await act(4)
        raise


@case()
async def nothing_to_reraise() -> Any:
    await act(1)
    try:
        raise
    except RuntimeError as error:
        note(str(error))
        await act(2)
    raise


@case()
async def handled_exception_is_seen() -> Any:
    import sys

    seen = [sys.exc_info()[1]]
    try:
        boom(1)
    except Counted:
        await act(1)
        seen.append(sys.exc_info()[1])
        try:
            boom(2)
        except Counted:
            await act(2)
            seen.append(sys.exc_info()[1])
        seen.append(sys.exc_info()[1])
        await act(3)
        seen.append(sys.exc_info()[1])
    seen.append(sys.exc_info()[1])
    await act(4)
    seen.append(sys.exc_info()[1])
    try:
        await act(5)
    finally:
        seen.append(sys.exc_info()[1])
        await act(6)
        note([repr(error) for error in seen])
    del sys
    return [repr(error) for error in seen]


@case()
async def error_kept() -> Any:
    errors = []
    for i in range(3):
        try:
            if i:
                boom(i)
            errors.append(await act(i))
        except Counted as error:
            error.add_note(f"note {i}")
            errors.append(error)
            await act("kept")
            errors.append(error)
    first = errors[1]
    await act(len(errors))
    return errors, first is errors[2]


@case()
async def rebinding_the_name() -> Any:
    error = "before"
    try:
        boom()
    except Counted as error:
        await act(1)
        error = "rebound"
        await act(2)
    try:
        note(error)
    except UnboundLocalError as gone:
        note(str(gone))
    try:
        boom()
    except Counted as error:
        await act(3)
        del error
        await act(4)
    for i in range(2):
        try:
            boom()
        except Counted as error:
            await act(5)
            if i:
                break
            continue
    return "error" in dir(error) if i > 5 else None


@case()
async def handler_raises() -> Any:
    try:
        try:
            await act(1)
            boom()
        except await_free_error() if False else Counted as error:
            await act(2)
            missing_name
        else:
            await act("else")
    except NameError as error:
        await act(str(error))
        return str(error.__context__)


@case()
async def clause_is_no_class() -> Any:
    try:
        await act(1)
        boom()
    except "text":
        await act(2)


@case()
async def clause_raises() -> Any:
    try:
        await act(1)
        boom("first")
    except note(undefined_error):
        await act(2)
    except Counted:
        await act(3)


@case()
async def same_error_again() -> Any:
    error = Counted("only one")
    try:
        raise error
    except Counted:
        await act(1)
        try:
            raise error
        except Counted:
            await act(2)
            raise error


@case({"x": 0}, {"x": 1})
async def return_in_try(x: Any) -> Any:
    value = [1]
    try:
        if x:
            return value
        await act(1)
    except Counted:
        return "never"
    else:
        return await act("else")
    finally:
        value.append(await act("finally"))


@case()
async def base_exceptions() -> Any:
    try:
        await act(1)
        raise KeyboardInterrupt("stop")
    except Exception:
        await act("not here")
    finally:
        await act("finally")


@case()
async def stop_iteration() -> Any:
    await act(1)
    next(iter([]))


@case({"x": 0}, {"x": 1})
async def raises(x: Any) -> Any:
    if x:
        raise Counted(await act(1))
    raise Counted from await act(2) or None


@case()
async def raise_from_awaited() -> Any:
    error, cause = Counted("e"), KeyError("c")
    raise error from (await act(1) or cause)


@case({"x": 0}, {"x": 1})
async def asserts(x: Any) -> Any:
    assert await act(1) == 0, "message"
    try:
        assert x and await act(2), f"{x} {await act(3)}"
    except AssertionError as error:
        note(error.args)
    try:
        assert x, await act(4)
    except AssertionError as error:
        note(error.args)
    assert not x


@case({"x": 5})
async def block_gives_back_when_it_raises(x: Any) -> Any:
    try:
        a = note(1)
        del x
        b = boom()
        c = 1
    except Counted:
        await act(a)
    try:
        note(x)
    except UnboundLocalError as error:
        note(str(error))
    try:
        return b, c
    except UnboundLocalError as error:
        return str(error)


@case({"x": 1}, {"x": 2})
async def try_in_loop_in_try(x: Any) -> Any:
    out = []
    try:
        for i in range(4):
            try:
                out.append(await act(i))
                if i == x:
                    raise Counted(i)
            except Counted as error:
                out.append(error.args)
                if await act("stop?") == x:
                    break
            finally:
                out.append(await act("f"))
    finally:
        out.append(await act("end"))
    return out


@case({"group": True}, {"group": False})
async def exception_groups(group: Any) -> Any:
    await act(1)
    try:
        if group:
            raise ExceptionGroup("many", [ValueError(1), KeyError(2)])
        raise ValueError(3)
    except* ValueError as errors:
        note(errors.exceptions)
    except* KeyError:
        note("key")
    return await act(2)
