"""Loading users' modules, by dotted name or as a file; a failure shows their traceback, not ours."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from callboard.errors import CallboardError, InvalidDeclaration

_HERE = str(Path(__file__).parent.parent) + os.sep
_IMPORTLIB = str(Path(importlib.__file__).parent) + os.sep


class ModuleFailed(InvalidDeclaration):
    """A module that was asked for cannot be imported; the message ends with the traceback of its own code."""

    code = "module-failed"


def load(modules: Sequence[str]) -> list[ModuleType]:
    """Import `modules` in order: dotted names (`acme.tasks`) or files (`tasks.py`, `jobs/tasks.py`).

    The working directory can be imported from, as with `python -m`. A file's own folder can be too,
    unless it lies in a package: then it is imported as that package's module. Raises ModuleFailed.
    """
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    importlib.invalidate_caches()
    return [_load(wanted) for wanted in modules]


def _load(wanted: str) -> ModuleType:
    if not (wanted.endswith(".py") or "/" in wanted or os.sep in wanted):
        return _import(wanted, wanted)
    path = Path(wanted).resolve()
    if not path.is_file():
        raise ModuleFailed(f"Module {wanted!r} cannot be loaded: there is no file {path}.")
    root, name = path.parent, path.stem
    while (root / "__init__.py").is_file():
        root, name = root.parent, f"{root.name}.{name}"
    name = name.removesuffix(".__init__")
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
    return _import(name, wanted) if _finds(name, path) else _import_file(name, path, wanted)


def _finds(name: str, path: Path) -> bool:
    """Whether importing `name` gives the file at `path`, and not a namesake installed elsewhere."""
    if not all(part.isidentifier() for part in name.split(".")):
        return False
    loaded = sys.modules.get(name)
    if loaded is not None:
        return bool(loaded.__file__) and Path(str(loaded.__file__)).resolve() == path
    if "." in name:
        return True
    spec = importlib.util.find_spec(name)
    return spec is not None and spec.origin is not None and Path(spec.origin).resolve() == path


def _import(name: str, wanted: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        if isinstance(error, ModuleNotFoundError) and error.name and _is_part(error.name, name):
            hint = (
                f" There is a file {name}.py here: did you mean that?" if Path(f"{name}.py").is_file() else ""
            )
            raise ModuleFailed(
                f"Module {wanted!r} cannot be loaded: no module is named {error.name!r}.{hint}"
            ) from None
        raise _failed(wanted, error) from None


def _import_file(name: str, path: Path, wanted: str) -> ModuleType:
    known = (
        name if name not in sys.modules and name.isidentifier() else f"callboard_module_{abs(hash(path)):x}"
    )
    spec = importlib.util.spec_from_file_location(known, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[known] = module
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[known]
        if isinstance(error, KeyboardInterrupt):
            raise
        raise _failed(wanted, error) from None
    return module


def _is_part(missing: str, name: str) -> bool:
    return name == missing or name.startswith(f"{missing}.")


def _failed(wanted: str, error: BaseException) -> ModuleFailed:
    return ModuleFailed(f"Module {wanted!r} cannot be loaded:\n{users_traceback(error)}")


def users_traceback(error: BaseException) -> str:
    """The traceback of `error` without the frames of the import system and of this library that led to it."""
    told = traceback.TracebackException.from_exception(error)
    part: traceback.TracebackException | None = told
    raised: BaseException | None = error
    while part is not None:
        frames = [frame for frame in part.stack if not frame.filename.startswith(("<frozen ", _IMPORTLIB))]
        first = next((i for i, frame in enumerate(frames) if not _is_ours(frame.filename)), len(frames))
        last = len(frames)
        if isinstance(raised, CallboardError):
            # Its message says what we refuse, and the last line is to be the one that has to be mended.
            while last > first and _is_ours(frames[last - 1].filename):
                last -= 1
        # Else below the user's first frame ours stay: they show what of ours they called.
        part.stack = traceback.StackSummary.from_list(frames[first:last])
        if part.__cause__ is not None:
            part, raised = part.__cause__, raised and raised.__cause__
        elif part.__suppress_context__:
            break
        else:
            part, raised = part.__context__, raised and raised.__context__
    return "".join(told.format()).rstrip()


def _is_ours(file: str) -> bool:
    # <string>: what dataclasses make.
    return file.startswith((_HERE, _IMPORTLIB, "<frozen ", "<string>"))
