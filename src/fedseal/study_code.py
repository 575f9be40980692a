"""A study's own code: found by reference, loaded, and its failures told as the operator's."""

import hashlib
import importlib
import importlib.util
import re
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from fedseal.errors import ConfigError

# What a study's own code commonly raises; it is the operator's file, so the operator is told.
STUDY_FAILURES = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    ImportError,
    LookupError,
    MemoryError,
    NameError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
)

# Names and dots only: a reference cannot lead out of the study's folder.
REFERENCE = r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*"

# Under such names studies' modules are imported.
_MODULE_PREFIX = "fedseal_study_"

TASK_METHODS = ("model", "data", "loss", "metrics")


def load_task(reference: str, folder: object = None) -> object:
    """The task object behind ``module:Name``.

    Args:
        reference: module and class or object; a class is called without arguments.
        folder: the study's folder (a string or path); None looks the module up on the import path, where Flower puts
            a shipped app.

    Raises:
        ConfigError: it cannot be imported or is no task.
    """
    found = load_object(reference, folder)
    with study_code(f"making {reference}"):
        task = found() if isinstance(found, type) else found
    missing = [m for m in TASK_METHODS if not callable(getattr(task, m, None))]
    if missing:
        raise ConfigError(
            f"{reference} has no method {', '.join(missing)}",
            next_step="A task has the methods model, data, loss and metrics; see docs/studies.md.",
        )
    return task


@contextmanager
def study_code(what: str) -> Iterator[None]:
    """Run a study's own code; what it commonly raises becomes a ConfigError that quotes it and names the line.

    For the operator's own machine. Nothing that may hold a person's data is run under this at a deployed site.

    Args:
        what: what runs, for the message: ``"data() for hospital-1"``.
    """
    try:
        yield
    except STUDY_FAILURES as error:
        raise ConfigError(f"{what} raised {type(error).__name__}: {error}", next_step=_line_of(error)) from error


def _line_of(error: BaseException) -> str:
    """Where in the study an exception came from."""
    places = [
        f"Look at line {line} of {Path(frame.f_code.co_filename).name}."
        for frame, line in traceback.walk_tb(error.__traceback__)
        if str(frame.f_globals.get("__name__")).startswith(_MODULE_PREFIX)
    ]
    return places[-1] if places else "Mend it in the study's own code."


def load_object(reference: str, folder: object = None) -> object:
    """Whatever ``module:name`` names; ConfigError if it cannot be imported."""
    if not re.fullmatch(REFERENCE, reference):
        raise ConfigError(f"{reference!r} is not of the form module:Name")
    module_name, _, name = reference.partition(":")
    try:
        module = importlib.import_module(module_name) if folder is None else _load_file(Path(str(folder)), module_name)
    except STUDY_FAILURES as error:
        raise ConfigError(
            f"{module_name}.py cannot be imported: {type(error).__name__}: {error}",
            next_step="Run it with python to see the whole error.",
        ) from error
    if not hasattr(module, name):
        raise ConfigError(f"{module_name}.py defines no {name!r}")
    found: object = getattr(module, name)
    return found


def _load_file(folder: Path, module_name: str) -> ModuleType:
    """Import a study's module under a name of its own, so that two studies in one process do not meet."""
    path = (folder / (module_name.replace(".", "/") + ".py")).resolve()
    unique = f"{_MODULE_PREFIX}{hashlib.sha256(str(path).encode()).hexdigest()[:16]}"
    if unique in sys.modules:
        return sys.modules[unique]
    spec = importlib.util.spec_from_file_location(unique, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise FileNotFoundError(f"{path} does not exist")
    module = importlib.util.module_from_spec(spec)
    sys.modules[unique] = module
    finished = False
    try:
        with _importable(folder):
            spec.loader.exec_module(module)
        finished = True
    finally:
        if not finished:
            del sys.modules[unique]
    return module


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """Let the module import its neighbours while it is loaded, and keep their names to itself.

    Another study may have neighbours of the same names. So a study imports its neighbours at the top, not inside
    functions.
    """
    before = set(sys.modules)
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        for name in set(sys.modules) - before:
            file = getattr(sys.modules[name], "__file__", None)
            if file is not None and Path(file).resolve().is_relative_to(folder.resolve()):
                del sys.modules[name]
