"""What a persistence point writes of an instance's variables.

All variables of all frames are encoded in one pass, so that what they share stays shared, and compared
with their last encoded form, so that changes made in place are found.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from holdfast.events.types import FrameChange, Json, Persisted, Reason
from holdfast.processor.core.frame import FrameImage
from holdfast.processor.core.machine import Machine
from holdfast.projections.instance import InstanceState
from holdfast.schemas.errors import NotPersistable
from holdfast.schemas.values import Types, decode, encode


@dataclass(slots=True)
class Encoder:
    """Keeps the last encoded form of one instance's variables: JSON text by frame and name."""

    types: Types
    texts: Mapping[str, bytes] = field(default_factory=dict)

    @classmethod
    def of(cls, state: InstanceState, types: Types) -> Encoder:
        """Return an encoder that stands where a stored state stands."""
        trees = {f"{path}.{name}": tree for path, f in state.frames.items() for name, tree in f.variables.items()}
        return cls(types, {key: orjson.dumps(tree) for key, tree in trees.items()})

    def persisted(
        self, reason: Reason, machine: Machine, state: InstanceState, *, idle: bool = False
    ) -> tuple[Persisted, Mapping[str, bytes]]:
        """Return the event that closes a batch, and the texts to keep once it has committed.

        ``state`` is the state as of the previous persistence point, ``idle`` is as in ``Persisted``.
        Raises ``NotPersistable`` with the variable and the line at which its frame stands.
        """
        if machine.outcome is not None:
            return Persisted(reason=reason, ended=tuple(state.frames)), {}
        images = machine.images()
        trees = self._encode(images)
        texts = {key: orjson.dumps(tree) for key, tree in trees.items()}
        frames: dict[str, FrameChange] = {}
        for path, image in images.items():
            variables = image.variables
            keys = {name: f"{path}.{name}" for name in variables}
            changed = {name: trees[key] for name, key in keys.items() if self.texts.get(key) != texts[key]}
            before = state.frames.get(path)
            unset = () if before is None else tuple([name for name in before.variables if name not in variables])
            if before is None or changed or unset or (before.step, before.visits) != (image.step, image.visits):
                frames[path] = FrameChange(
                    step=image.step,
                    line=image.line,
                    visits=image.visits,
                    program=image.program if before is None else None,
                    set=changed,
                    unset=unset,
                )
        ended = tuple([path for path in state.frames if path not in images])
        return Persisted(reason=reason, frames=frames, ended=ended, idle=idle), texts

    def _encode(self, images: Mapping[str, FrameImage]) -> dict[str, Json]:
        values = {f"{path}.{name}": value for path, i in images.items() for name, value in i.variables.items()}
        try:
            return encode(values, self.types)
        except NotPersistable as error:
            path, _, name = error.variable.rpartition(".")
            raise NotPersistable(
                variable=name,
                path=error.path,
                type_name=error.type_name,
                mend=error.mend,
                line=images[path].line,
            ) from None


def images_of(state: InstanceState, types: Types) -> dict[str, FrameImage]:
    """Return the frames of a stored state with their variables as live objects again."""
    flat = {f"{path}.{name}": tree for path, frame in state.frames.items() for name, tree in frame.variables.items()}
    values: dict[str, Any] = decode(flat, types)
    return {
        path: FrameImage(
            program=frame.program,
            step=frame.step,
            line=frame.line,
            visits=frame.visits,
            variables={name: values[f"{path}.{name}"] for name in frame.variables},
        )
        for path, frame in state.frames.items()
    }


def encode_value(value: object, types: Types) -> Json:
    """Return one value as the log shows it; what has no stored form is shown as its ``repr``."""
    try:
        return encode({"result": value}, types)["result"]
    except NotPersistable:
        return encode_result(repr(value), types)


def encode_result(value: object, types: Types) -> Json:
    """Return a result for who waits for it; ``NotPersistable`` if it has no stored form."""
    return encode({"result": value}, types)["result"]


def decode_value(tree: Json, types: Types) -> Any:
    """Return the value that ``encode_value`` gave as a tree; raises ``UnreadableValue``."""
    return decode({"result": tree}, types)["result"]
