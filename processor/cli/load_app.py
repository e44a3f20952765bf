"""Finds the user's app, and what else is named ``package.module:attribute``, from the current directory too."""

from __future__ import annotations

import importlib
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

from holdfast.processor.exporting.xes import Label
from holdfast.processor.language.app import App
from holdfast.projections.builtin.variants import Variants
from holdfast.schemas.errors import AppError, HoldfastError


def load_app(spec: str) -> App:
    """Return the app that ``module:attribute`` names, checked.

    Raises ``AppError`` if there is none or it does not hang together, and ``CompileError`` if one of its workflows
    cannot become a program; either says in which file and line, where there is one.
    """
    module, found = _find(spec, "app: write module:attribute, for instance examples.orders.app:app", _others)
    if not isinstance(found, App):
        raise AppError(f"{spec} is no holdfast.App but a {type(found).__name__}{_others(module)}")
    found.check()
    return found


def load_label(spec: str) -> Label:
    """Return what says how steps are called: a function, or the ``label`` of a class of ``Variants``.

    Raises ``AppError`` if there is no such thing.
    """
    _, found = _find(spec, "label: write module:name, for instance examples.permits.app:Traces", _nothing)
    if isinstance(found, type) and issubclass(found, Variants):
        return found().label
    if isinstance(found, type) or not callable(found):
        raise AppError(f"{spec} is neither a function nor a class of Variants, but {found!r}")
    label: Label = found
    return label


def _find(spec: str, wanted: str, others: Callable[[ModuleType], str]) -> tuple[ModuleType, object]:
    """Return what ``module:attribute`` names, and the module; ``others`` says what else there is in one."""
    module_name, _, attribute = spec.partition(":")
    if not module_name or not attribute:
        raise AppError(f"{spec!r} names no {wanted}")
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    module = _import(module_name)
    found: object = module
    for name in attribute.split("."):
        if not hasattr(found, name):
            raise AppError(f"module {module_name} has no {attribute!r}{others(module)}")
        found = getattr(found, name)
    return module, found


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except HoldfastError:
        raise
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(f"{error.name}.")):
            raise AppError(f"there is no module {name!r}, neither in {Path.cwd()} nor installed") from error
        raise AppError(f"{_place(error)}module {name} needs {error.name!r}, which is not installed") from error
    except SyntaxError as error:
        raise AppError(f"{error.filename}:{error.lineno}: {error.msg}") from error
    except Exception as error:
        summary = "".join(traceback.format_exception_only(error)).strip()
        raise AppError(f"{_place(error)}module {name} cannot be imported: {summary}") from error


def _place(error: Exception) -> str:
    """Return where an import failed, outside of the import system."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith("<frozen")]
    outside = [frame for frame in frames if frame.filename not in (__file__, importlib.__file__)]
    return f"{outside[-1].filename}:{outside[-1].lineno}: " if outside else ""


def _others(module: ModuleType) -> str:
    apps = [name for name, value in vars(module).items() if isinstance(value, App)]
    return f"; it has the app {', '.join(apps)}" if apps else "; it has no app at all"


def _nothing(_: ModuleType) -> str:
    return ""
