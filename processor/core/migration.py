"""Whether an instance can go on with the programs that are deployed now, and how it stands there.

Each frame has a place in its old program, an await. It is looked for in the new program by what is awaited and what is
around it (``await_points``), with both programs laid side by side as ``diff`` lays files (``alignment``). Only what is
beyond doubt is taken: the awaits must pair in exactly one way, what the new program may read from there on must be
there (``liveness``), and what is known by a name or derived from the old place must stay what it is. Whatever speaks
against it becomes an obstacle, with words that say what could be done.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from holdfast.events.types import Event, FrameChange, InstanceMigrated, Json, Persisted
from holdfast.processor.core.alignment import successors
from holdfast.processor.core.await_points import AwaitPoint, await_points
from holdfast.processor.core.compensation import BY_HASH
from holdfast.processor.core.frame import ROOT
from holdfast.processor.core.liveness import read_from
from holdfast.processor.core.repeats import keeps_keys, repeated
from holdfast.processor.language.app import App
from holdfast.processor.language.awaitables import ActivityCall, RoutineCall
from holdfast.processor.language.program import Program
from holdfast.projections.instance import FrameState, InstanceState
from holdfast.schemas.errors import UnreadableValue
from holdfast.schemas.values import Types, declarable, decode
from holdfast.schemas.values.types import default_name

Reason = Literal[
    "workflow_gone",
    "routine_gone",
    "program_lost",
    "not_signed",
    "names_gone",
    "place_gone",
    "place_ambiguous",
    "surroundings_changed",
    "mid_expression",
    "in_finally",
    "variable_missing",
    "activity_pending",
    "activity_gone",
    "message_type_gone",
    "type_gone",
    "subflow_inside",
    "ending",
]
"""What may speak against an instance on the deployed code."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Obstacle:
    """One thing that speaks against it; the lines are those of the old and of the new program's file, where known."""

    reason: Reason
    detail: str
    frame: str | None = None
    old_line: int | None = None
    new_line: int | None = None


@dataclass(frozen=True, slots=True)
class _Moved:
    """A frame in its new program; ``renamed`` are hidden variables that have another name there."""

    versions: _Versions
    point: AwaitPoint
    renamed: Mapping[str, str]
    keeps_step: bool

    @property
    def program(self) -> Program:
        return self.versions.new


class _Versions:
    """Two versions of a program, side by side."""

    def __init__(self, old: Program, new: Program) -> None:
        self.old = old
        self.new = new
        self.points = await_points(old)
        self.targets = await_points(new)
        several = {
            identity
            for points in (self.points, self.targets)
            for identity, count in Counter(it.identity for it in points).items()
            if count > 1
        }

        def told_apart(points: Sequence[AwaitPoint]) -> list[Hashable]:
            """Where a program waits for the same at several places, the expressions must be the same too."""
            return [(it.identity, it.text if it.identity in several else None) for it in points]

        self.successors = successors(told_apart(self.points), told_apart(self.targets))
        self.read_by_new = read_from(new)


class Migration:
    """How instances stand to an app as it is deployed.

    ``programs`` are those that their frames run on, by hash, each linked to the deployed module of its workflow or
    routine, if there is one: whoever asks about an instance puts them in before. ``unsigned`` are those of them that no
    worker trusts.
    """

    def __init__(self, app: App) -> None:
        self.app = app
        self.programs: dict[str, Program] = dict(BY_HASH)
        self.unsigned: set[str] = set()
        self._versions: dict[tuple[str, str], _Versions] = {}

    def deployed(self, path: str, state: InstanceState) -> Program | None:
        """Return the program that would be in a frame if it began now; None if the app has none."""
        frame = state.frames[path]
        old = self.programs.get(frame.program)
        name = state.workflow if path == ROOT else "" if old is None else old.name
        if path == ROOT or "$child" in frame.variables:
            workflow = self.app.workflows.get(name)
            return None if workflow is None else workflow.program
        routine = self.app.routines.get(name)
        return None if routine is None else routine.program

    def is_current(self, state: InstanceState) -> bool:
        """Whether all frames run on programs as they are deployed."""
        for path, frame in state.frames.items():
            new = self.deployed(path, state)
            if frame.program not in BY_HASH and (new is None or new.hash != frame.program):
                return False
        return True

    def hindrances(self, state: InstanceState) -> list[Obstacle]:
        """Return what keeps workers with the deployed code from running an instance on the programs that it has."""
        found: list[Obstacle] = []
        classes: list[type] = []
        for path, frame in state.frames.items():
            program = self.programs.get(frame.program)
            if program is None:
                found.append(_lost(path, frame))
            elif program.namespace is None:
                found.append(_gone(path, frame, program, state))
            elif missing := program.unresolved(program.namespace):
                detail = f"{program.module} no longer defines {', '.join(missing)}, which its program uses"
                found.append(Obstacle(reason="names_gone", detail=detail, frame=path, old_line=frame.line))
            elif frame.program in self.unsigned and program != self.deployed(path, state):
                detail = f"program {frame.program} is not signed with the app's program key"
                found.append(Obstacle(reason="not_signed", detail=detail, frame=path, old_line=frame.line))
            else:
                classes += [it for it in program.named(program.namespace) if isinstance(it, type)]
        types = _with_classes(self.app.types, classes)
        messages = {*self.app.messages, *(name for it in classes if (name := getattr(it, "message_type", None)))}
        return [*found, *_unknown(state, self.app, types, messages)]

    def migrate(
        self, state: InstanceState, *, by: str, why: str | None = None, was_cut_short: bool = False
    ) -> list[Event] | list[Obstacle]:
        """Return the batch that moves an instance to the deployed programs, or what speaks against that.

        The batch is empty for an instance that has nothing to move. It ``was_cut_short`` if its host may have fallen
        while it ran, or what it is to take was tried before, so that activities may have run of which nothing is known.
        """
        obstacles: list[Obstacle] = []
        moved: dict[str, _Moved] = {}
        for path, frame in state.frames.items():
            old, new = self.programs.get(frame.program), self.deployed(path, state)
            if frame.program in BY_HASH or (new is not None and new.hash == frame.program):
                continue
            if old is None:
                obstacles.append(_lost(path, frame))
            elif new is None:
                obstacles.append(_gone(path, frame, old, state))
            elif "$child" in frame.variables:
                detail = f"it runs subflow {old.name} within itself, on an older program: wait for its end"
                obstacles.append(Obstacle(reason="subflow_inside", detail=detail, frame=path, old_line=frame.line))
            else:
                pair = (old.hash, new.hash)
                versions = self._versions.get(pair) or self._versions.setdefault(pair, _Versions(old, new))
                found = _move(path, frame, versions)
                if isinstance(found, _Moved):
                    moved[path] = found
                else:
                    obstacles.append(found)
        if not moved and not obstacles:
            return []
        obstacles += _pending(state, moved)
        workflow = self.app.workflows.get(state.workflow)
        is_regular = workflow is not None and workflow.persistence == "regular"
        obstacles += _repeating(state, moved, was_cut_short=was_cut_short, is_regular=is_regular)
        obstacles += _unknown(state, self.app, self.app.types, {*self.app.messages})
        return obstacles or _batch(state, moved, by, why)


def _batch(state: InstanceState, moved: Mapping[str, _Moved], by: str, why: str | None) -> list[Event]:
    pointers = {
        f"{path}.{one}".replace("~", "~0"): f"{path}.{other}".replace("~", "~0")
        for path, each in moved.items()
        for one, other in each.renamed.items()
    }
    changes: dict[str, FrameChange] = {}
    for path, frame in state.frames.items():
        renamed = moved[path].renamed if path in moved else {}
        after = {renamed.get(name, name): _repointed(tree, pointers) for name, tree in frame.variables.items()}
        changed = {name: tree for name, tree in after.items() if tree != frame.variables.get(name, _ABSENT)}
        gone = tuple(name for name in frame.variables if name not in after)
        if path in moved:
            point, program = moved[path].point, moved[path].program.hash
            changes[path] = FrameChange(
                step=point.step, line=point.line, visits=frame.visits, program=program, set=changed, unset=gone
            )
        elif changed:
            changes[path] = FrameChange(step=frame.step, line=frame.line, visits=frame.visits, set=changed)
    lines = {
        name: moved[path].point.line
        for name, mark in state.bookmarks.items()
        if (path := _frame_of(mark.frame, state)) in moved
    }
    to_program = moved[ROOT].program.hash if ROOT in moved else state.program_hash
    return [
        InstanceMigrated(from_program=state.program_hash, to_program=to_program, by=by, why=why, lines=lines),
        Persisted(reason="migrated", frames=changes, idle=state.execution_status == "idle"),
    ]


def _repointed(tree: Json, pointers: Mapping[str, str]) -> Json:
    """Return a tree whose aliases point to where things are now."""
    if not pointers or not isinstance(tree, dict | list):
        return tree
    if isinstance(tree, list):
        return [_repointed(item, pointers) for item in tree]
    pointer = tree.get("$ref")
    if isinstance(pointer, str):
        name, slash, rest = pointer.partition("/")
        return {**tree, "$ref": f"{pointers.get(name, name)}{slash}{rest}"}
    return {name: _repointed(item, pointers) for name, item in tree.items()}


def _lost(path: str, frame: FrameState) -> Obstacle:
    detail = f"program {frame.program} is not stored, or in a format that is not known here"
    return Obstacle(reason="program_lost", detail=detail, frame=path, old_line=frame.line)


def _gone(path: str, frame: FrameState, program: Program, state: InstanceState) -> Obstacle:
    if path == ROOT:
        return Obstacle(reason="workflow_gone", detail=f"the app has no workflow {state.workflow} any more", frame=path)
    detail = f"the app has no routine {program.name} any more"
    return Obstacle(reason="routine_gone", detail=detail, frame=path, old_line=frame.line)


def _move(path: str, frame: FrameState, versions: _Versions) -> _Moved | Obstacle:
    points, targets = versions.points, versions.targets
    index = next((number for number, each in enumerate(points) if each.step == frame.step), None)

    def against(reason: Reason, detail: str, target: AwaitPoint | None = None) -> Obstacle:
        line = None if target is None else target.line
        return Obstacle(reason=reason, detail=detail, frame=path, old_line=frame.line, new_line=line)

    if index is None or "$ended" in frame.variables:
        return against("ending", "it has come to its end, and only what is left to undo or confirm runs: wait for that")
    point = points[index]
    if point.held:
        return against("mid_expression", f"it waits for {point.what} in an expression that is half evaluated")
    for slot in point.slots:
        if slot.startswith("$pending") and not _is_exception(frame.variables.get(slot)):
            return against("in_finally", "it stands in a finally clause, on its way somewhere in the old program")
    found = versions.successors[index]
    if found is None:
        return against(*_why_not(point, targets))
    target = targets[found]
    if target.held:
        return against("mid_expression", f"the new program waits for {point.what} inside of an expression", target)
    have = {name for name in frame.variables if not name.startswith("$")}
    missing = versions.read_by_new[target.step] - have
    if missing:
        name = min(missing)
        line = _first_use(versions.new, name)
        return against(
            "variable_missing", f"the new program uses variable {name}, at line {line}, which it does not have", target
        )
    renamed = {one: other for one, other in zip(point.slots, target.slots, strict=True) if one != other}
    return _Moved(versions, target, renamed, target.step == frame.step)


def _why_not(point: AwaitPoint, targets: Sequence[AwaitPoint]) -> tuple[Reason, str, AwaitPoint | None]:
    same = [each for each in targets if each.what == point.what]
    if not same:
        return "place_gone", f"the new program never waits for {point.what}", None
    fits = [each for each in same if each.identity == point.identity]
    if fits:
        lines = " and ".join(str(each.line) for each in fits)
        detail = f"it waits for {point.what}, as the new program does at line {lines}: nothing says that it is the same"
        return "place_ambiguous", detail, fits[0]
    detail = f"the new program waits for {point.what} in other surroundings: {_other(point, same[0])}"
    return "surroundings_changed", detail, same[0]


def _other(point: AwaitPoint, target: AwaitPoint) -> str:
    """Say what is around one await and not around the other."""
    old, new = {*point.around, *point.decided}, {*target.around, *target.decided}
    if old != new:
        said = [f"no longer in {', '.join(sorted(old - new))}"] if old - new else []
        return " and ".join([*said, *([f"in {', '.join(sorted(new - old))}"] if new - old else [])])
    return f"in {target.loops} loops instead of {point.loops}"


def _is_exception(tree: Json) -> bool:
    return isinstance(tree, dict) and ("$exception" in tree or "$ref" in tree)


def _first_use(program: Program, name: str) -> int | str:
    lines = [
        node["at"][0]
        for block in program.blocks
        for node in _nodes(block["body"])
        if node.get("_") == "Name" and node.get("id") == name and "ctx" not in node
    ]
    return min(lines, default="?")


def _pending(state: InstanceState, moved: Mapping[str, _Moved]) -> Iterator[Obstacle]:
    """Yield activity calls whose idempotency keys, which name the old place, would be other ones."""
    shifted = {path for path, each in moved.items() if not each.keeps_step}
    words = {"intended": "is in doubt", "delayed": "is to be tried again", "requested": "is asked of a queue"}
    told = set()
    for call in state.calls.values():
        if (path := _frame_of(call.frame, state)) in shifted:
            told.add(path)
            detail = f"activity {call.activity} {words[call.status]}, under a key of the old place: wait for its end"
            yield Obstacle(reason="activity_pending", detail=detail, frame=path, old_line=call.line)
    for path in shifted - told:
        frame = state.frames[path]
        for node in _nodes(frame.variables.get("$await")):
            if node.get("$object") == _ACTIVITY:
                detail = f"activity {node['activity']} may have run, under a key of the old place: wait for its end"
                yield Obstacle(reason="activity_pending", detail=detail, frame=path, old_line=frame.line)


def _repeating(
    state: InstanceState, moved: Mapping[str, _Moved], *, was_cut_short: bool, is_regular: bool
) -> Iterator[Obstacle]:
    """Yield frames behind whose places activities may have run that would run again, under other keys."""
    failed = state.suspension_reason in _FAILURES
    for path, each in moved.items() if was_cut_short or failed else ():
        frame, versions = state.frames[path], each.versions
        calls = repeated(versions.old, versions.points, frame.step, is_regular=is_regular)
        # A batch forgets that it was cut short. That it is suspended stays known to the next version.
        if calls and (was_cut_short or not keeps_keys(versions.old, versions.new, frame.step, calls)):
            first = next(it for it in versions.points if it.step in calls)
            why = "the host fell or gave up" if was_cut_short else "it was suspended"
            detail = f"{first.what}, behind its place, may have run before {why}, under a key of the old program"
            yield Obstacle(reason="activity_pending", detail=detail, frame=path, old_line=first.line)


def _unknown(state: InstanceState, app: App, types: Types, messages: set[str]) -> Iterator[Obstacle]:
    """Yield what the instance's data names and the app does not know."""
    told = set()
    for path, frame in state.frames.items():
        for node in _nodes(dict(frame.variables)):
            kind, name = node.get("$object"), node.get("activity") or node.get("routine")
            is_gone = (kind == _ACTIVITY and name not in app.activities) or (
                kind == _ROUTINE and name not in app.routines
            )
            if is_gone and name not in told:
                told.add(name)
                if kind == _ACTIVITY:
                    detail = f"it is to call activity {name}, which the app does not have any more"
                    yield Obstacle(reason="activity_gone", detail=detail, frame=path, old_line=frame.line)
                else:
                    detail = f"it is to call routine {name}, which the app does not have any more"
                    yield Obstacle(reason="routine_gone", detail=detail, frame=path, old_line=frame.line)
    for mark in state.bookmarks.values():
        if mark.kind == "message" and mark.message_type not in messages:
            detail = f"it waits for {mark.message_type}, which the app no longer knows: name it in App(types=(…,))"
            yield Obstacle(reason="message_type_gone", detail=detail, frame=mark.frame, old_line=mark.line)
    trees = {f"{path}.{name}": tree for path, frame in state.frames.items() for name, tree in frame.variables.items()}
    try:
        decode(trees, types)
    except UnreadableValue as error:
        yield Obstacle(reason="type_gone", detail=f"a value cannot be read: {error}")


def _with_classes(types: Types, classes: list[type]) -> Types:
    found = Types(modules=types.modules)
    for name, cls in types.classes.items():
        if name not in found.classes:
            found.add(cls, name)
    for cls in classes:
        if default_name(cls) not in found.classes and declarable(cls):
            found.add(cls)
    return found


def _frame_of(path: str, state: InstanceState) -> str:
    """Return the path of the frame that a branch belongs to, if it is no frame itself."""
    while path not in state.frames:
        path = path.rpartition(".")[0]
    return path


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            yield node
            waiting += node.values()
        elif isinstance(node, list):
            waiting += node


_ABSENT = object()
_ACTIVITY, _ROUTINE = default_name(ActivityCall), default_name(RoutineCall)
_FAILURES = ("unhandled_exception", "not_persistable", "attempts_exhausted", "in_doubt")
