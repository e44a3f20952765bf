"""The two doors: all variables to trees, and back."""

from __future__ import annotations

from collections.abc import Mapping

from holdfast.schemas.errors import HoldfastError, NotPersistable, UnreadableValue
from holdfast.schemas.values import atoms, containers, exceptions, objects
from holdfast.schemas.values.passes import MAX_DEPTH, ROOT, Decode, Decoding, Encoding, Json, type_name
from holdfast.schemas.values.types import Types

TAGS: dict[str, Decode] = {**atoms.TAGS, **containers.TAGS, **objects.TAGS, **exceptions.TAGS}


def encode(variables: Mapping[str, object], types: Types) -> dict[str, Json]:
    """Write all variables of an instance, in their order, as one tree each.

    An object that several variables share is written with the first of them; the others refer to it. Raises
    ``NotPersistable``, without a line, at the first value that has no stored form.
    """
    encoding = Encoding(types)
    encoders = encoding.encoders
    trees: dict[str, Json] = {}
    for name, value in variables.items():
        try:
            trees[name] = encoders[type(value)](encoding, value, ROOT, name)
        except RecursionError:
            # The caller's own stack is deep already; MAX_DEPTH alone stays well below Python's limit.
            raise NotPersistable(
                variable=name,
                path="",
                type_name=type_name(type(value)),
                mend=f"It is nested too deeply to be written from here (the limit is {MAX_DEPTH} levels)",
            ) from None
    return trees


def decode(trees: Mapping[str, Json], types: Types) -> dict[str, object]:
    """Give the variables back from their trees, with exact types and the aliases between them.

    The trees must be those of one ``encode``, in any order, and stay as they are during the call. Raises
    ``UnreadableValue`` if a tree names a class or module that is not declared, or is damaged.
    """
    decoding = Decoding(trees, types, TAGS)
    for name in trees:
        if name in decoding.started:
            continue
        try:
            decoding.variable(name)
        except HoldfastError as error:
            raise UnreadableValue(f"variable {name!r} cannot be read: {error}") from error
        except Exception as error:
            raise UnreadableValue(f"variable {name!r} cannot be read: {error!r}") from error
    return {name: decoding.variables[name] for name in trees}
