"""The stored form of variables: Python values as JSON trees, exact and with their aliases.

``encode`` writes all variables of an instance in one pass and gives one tree for each; ``decode`` gives the variables
back with their exact types. A trip through ``orjson.dumps`` and ``orjson.loads`` in between changes nothing.

A tree is written as plainly as it can be. ``None``, booleans, text, finite floats and integers of up to 64 bits stand
for themselves, a list is an array, and a dict whose keys are ordinary text is an object. Everything else is an object
whose first key is a tag:

    ==============  =========================================  ================================================
    tag             its value                                  beside it
    ==============  =========================================  ================================================
    ``$ref``        pointer to the first occurrence
    ``$int``        hexadecimal text (beyond 64 bits)
    ``$float``      ``"nan"``, ``"inf"``, ``"-inf"``
    ``$str``        escaped text (lone surrogates, NUL)
    ``$bytes``      base64
    ``$bytearray``  base64
    ``$decimal``    text
    ``$uuid``       text
    ``$date``       ISO 8601
    ``$time``       ISO 8601                                   ``tz``: tree of a time zone; ``fold``: 1
    ``$datetime``   ISO 8601                                   ``tz``: tree of a time zone; ``fold``: 1
    ``$timedelta``  days, seconds, microseconds
    ``$timezone``   days, seconds, microseconds from UTC       ``name``
    ``$zone``       key of a ``ZoneInfo``
    ``$tzinfo``     seconds from UTC of a ``pydantic_core.TzInfo``
    ``$range``      start, stop, step
    ``$slice``      start, stop, step
    ``$tuple``      items                                      ``$is``, see below
    ``$set``        items
    ``$frozenset``  items                                      ``$is``
    ``$dict``       pairs of key and value: some key is not text, begins with ``$``, or needs escapes
    ``$module``     name
    ``$class``      name
    ``$enum``       name of the class                          ``name`` of the member; ``value`` of a flag
    ``$object``     name of a model, dataclass or named tuple  each field; ``$attributes`` that are no fields;
                                                               ``$fields_set``, ``$extra``, ``$private`` of a model;
                                                               ``$is`` of a named tuple
    ``$exception``  name of the class                          ``args``, ``message``, ``members``, ``attributes``,
                                                               ``cause``, ``context``, ``suppress_context``; ``title``,
                                                               ``exceptions`` and ``$is`` of a group
    ==============  =========================================  ================================================

Aliases. Where an object occurs again, ``$ref`` points at its first occurrence: a JSON pointer (RFC 6901, without the
leading slash) through the trees, beginning with the variable's name. This covers all that can change and every model,
dataclass, named tuple and exception; of tuples and frozensets, those that hold more than scalars. A tuple can only be
made when its items are there, so one that contains itself through something mutable is written out twice; the outer one
then says with ``$is`` which tuple inside it is the same. Sets are written in an order that does not depend on hashes,
so that the same value has the same tree in every process.

Exceptions come back with type, arguments, attributes, notes and their chain, without traceback. A part of an exception
that has no stored form becomes its ``repr``, the end of a chain that is too long becomes type and message, and an
exception whose class is not declared comes back as ``RemoteError``. Models and dataclasses come back without their
``__init__`` or validation; a field that the class has gained since then takes its default, one that it has lost is
dropped. Cached properties are computed anew.

Names of classes and modules resolve among what ``Types`` declares and nowhere else, so a tree can never make code run
that the app did not name.

This is version 1 of the format. ``tests/golden/values`` keeps an example of every line of the table.
"""

from holdfast.schemas.values.codec import decode, encode
from holdfast.schemas.values.passes import MAX_DEPTH, Json
from holdfast.schemas.values.types import Types, declarable

__all__ = ["MAX_DEPTH", "Json", "Types", "declarable", "decode", "encode"]
