"""Changes of a workflow under which an order that waits is not to be moved: old, new, and what is said of it."""

WAIT = "await receive(Paid, placed.key)"

BRANCH = "if placed.key == 'k':"
OTHER = "await receive(Paid, placed.key.upper())"
CASES = (
    f"match placed.key:\n    case {{0}}:\n        {WAIT}\n        return {{1}}\n"
    f"    case {{2}}:\n        {WAIT}\n        return {{3}}"
)
LOOP = f"for item in ['a']:\n    {WAIT}"

REFUSED = {
    "place_gone": (f"{WAIT}\nreturn 1", "await receive(Sent, placed.key)\nreturn 1", "never waits for message Paid"),
    "place_gone, first of": (
        "await first_of(a=receive(Paid, placed.key), b=delay(timedelta(days=1)))",
        "await first_of(a=receive(Paid, placed.key), c=delay(timedelta(days=1)))",
        r"never waits for the first of \(a: message Paid for placed.key; b: delay\)",
    ),
    "place_ambiguous": (f"{WAIT}\nreturn 1", f"{WAIT}\n{WAIT}\nreturn 1", "nothing says that it is the same"),
    "surroundings_changed": (f"{WAIT}\nreturn 1", f"{LOOP}\nreturn 1", r"in other surroundings: in for \['a'\]"),
    "surroundings_changed, branches": (
        f"{BRANCH}\n    {WAIT}\n    return 1\nelse:\n    {WAIT}\n    return 2",
        f"if not placed.key == 'k':\n    {WAIT}\n    return 2\nelse:\n    {WAIT}\n    return 1",
        "no longer in if placed.key == 'k'",
    ),
    "surroundings_changed, another condition": (
        f"{BRANCH}\n    {WAIT}\n    return 1\n{WAIT}\nreturn 2",
        f"if placed.key != 'k':\n    {WAIT}\n    return 2\n{WAIT}\nreturn 1",
        "no longer in if placed.key == 'k' and in if placed.key != 'k'",
    ),
    "surroundings_changed, another condition that awaits": (
        f"if await weigh('x') == 7:\n    {WAIT}\n    return 1\n{WAIT}\nreturn 2",
        f"if await weigh('y') == 7:\n    {WAIT}\n    return 2\n{WAIT}\nreturn 1",
        r"no longer in if await weigh\('x'\) == 7",
    ),
    "surroundings_changed, cases": (
        CASES.format("'k'", 1, "_", 2),
        CASES.format("'z'", 2, "_", 1),
        "no longer in match placed.key case 'k'",
    ),
    "surroundings_changed, handlers": (
        (
            f"try:\n    raise ValueError('no')\nexcept ValueError:\n    {WAIT}\n    return 1\n"
            f"except TypeError:\n    {WAIT}\n    return 2"
        ),
        (
            f"try:\n    raise ValueError('no')\nexcept KeyError:\n    {WAIT}\n    return 2\n"
            f"except TypeError:\n    {WAIT}\n    return 1"
        ),
        "no longer in except ValueError",
    ),
    "place_ambiguous, keys": (f"{WAIT}\n{OTHER}\nreturn 1", f"{OTHER}\n{WAIT}\nreturn 1", "nothing says"),
    "place_gone, key": (f"{WAIT}\nreturn 1", f"{OTHER}\nreturn 1", "never waits for message Paid for placed.key"),
    "place_gone, key by name": (
        f"{WAIT}\nreturn 1",
        "await receive(key=placed.key.upper(), type=Paid)\nreturn 1",
        "never waits for message Paid for placed.key",
    ),
    "place_ambiguous, delays": (
        "await delay(timedelta(days=1))\nawait delay(timedelta(days=2))\nreturn 1",
        "await delay(timedelta(days=2))\nawait delay(timedelta(days=1))\nreturn 1",
        "nothing says",
    ),
    "surroundings_changed, loop over what was awaited": (
        f"for letter in await reserve(placed.key):\n    {WAIT}",
        f"for letter in await reserve('other'):\n    {WAIT}",
        r"no longer in for await reserve\(placed.key\) and in for await reserve\('other'\)",
    ),
    "place_gone, scope with what was awaited": (
        "async with transacted_receive(Paid, await reserve(placed.key)) as paid:\n    pass",
        "async with transacted_receive(Paid, await reserve('other')) as paid:\n    pass",
        r"transacted_receive\(Paid, await reserve\(placed.key\)\)",
    ),
    "surroundings_changed, while": (
        f"while True:\n    {WAIT}\n    break",
        f"if placed:\n    {WAIT}",
        "in 0 loops instead of 1|other surroundings",
    ),
    "surroundings_changed, loop over others": (
        f"for item in ['a']:\n    {WAIT}",
        f"for item in ['b']:\n    {WAIT}",
        r"no longer in for \['a'\] and in for \['b'\]",
    ),
    "surroundings_changed, scope": (
        f"{WAIT}\nreturn 1",
        f"async with compensable() as c:\n    {WAIT}\nreturn 1",
        r"in scope compensable\(\)",
    ),
    "variable_missing": (
        f"stock = await reserve(placed.key)\n{WAIT}\nreturn stock",
        f"reservation = await reserve(placed.key)\n{WAIT}\nreturn reservation",
        "uses variable reservation, at line",
    ),
    "variable_missing, in a comprehension too": (
        f"{WAIT}\nreturn 1",
        f"fee = 1\n{WAIT}\nreturn fee + sum(fee for fee in [1])",
        "uses variable fee, at line",
    ),
    "variable_missing, bound perhaps": (
        f"{WAIT}\nreturn 1",
        f"bonus = 1\n{WAIT}\nplaced.key == 'z' and (bonus := 2)\nreturn bonus",
        "uses variable bonus, at line",
    ),
    "variable_missing, bound where exceptions are kept back": (
        f"{WAIT}\nreturn 1",
        (
            f"from contextlib import suppress\nbonus = 1\n{WAIT}\nfrom contextlib import suppress\n"
            "with suppress(ValueError):\n    bonus = int(placed.key)\nreturn bonus"
        ),
        "uses variable bonus, at line",
    ),
    "variable_missing, read where it was not": (
        f"if placed.key == 'z':\n    note = await weigh('x')\n{WAIT}\nif placed.key == 'z':\n    return note\nreturn 1",
        f"if placed.key == 'z':\n    note = await weigh('x')\n{WAIT}\nreturn note",
        "uses variable note, at line",
    ),
    "mid_expression": (
        "return [await reserve(placed.key), await receive(Paid, placed.key)]",
        "await weigh('x')\nreturn [await reserve(placed.key), await receive(Paid, placed.key)]",
        "half evaluated",
    ),
    "in_finally": (
        f"try:\n    n = 1\nfinally:\n    {WAIT}\nreturn 1",
        f"await weigh('x')\ntry:\n    n = 1\nfinally:\n    {WAIT}\nreturn 1",
        "in a finally clause",
    ),
    "activity_gone": (
        f"async with compensable() as c:\n    c.undo(release, 'R')\n    {WAIT}",
        f"await weigh('x')\nasync with compensable() as c:\n    c.undo(release, 'R')\n    {WAIT}",
        "is to call activity release",
    ),
    "routine_gone": (
        "await pay(placed.key)",
        "await weigh('x')\nawait pay(placed.key)",
        "no routine pay any more",
    ),
    "type_gone": (
        f"stock = await count(placed.key)\n{WAIT}",
        f"await weigh('x')\nstock = await count(placed.key)\n{WAIT}",
        "Stock",
    ),
    "message_type_gone": (
        "kind = Paid\nawait receive(kind, placed.key)",
        "kind = Sent\nawait weigh('x')\nawait receive(kind, placed.key)",
        r"waits for Paid, which the app no longer knows: name it in App\(types=",
    ),
}
