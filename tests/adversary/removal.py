"""Builds with a hole: the real code in which exactly one condition is not asked, or one expression is another.

A check is named by the function it stands in and by its own text there. So it exists in the code or its attack cannot
run, and what is removed is that branch and nothing else. They exist in tests only.
"""

import ast
import importlib
import inspect
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any
from unittest.mock import patch

from fedseal import wire
from fedseal.privacy.secagg import degree

ROOT = "fedseal."


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that stands against an attack.

    Args:
        where: the function, from below `fedseal`.
        what: a condition there on which something is refused, or one of several joined by `or`; with ``instead``, any
            expression or statement; in a table, the key that it does not have.
        instead: what stands in its place where it is removed.
    """

    where: str
    what: str
    instead: str = ""


class NoSuchCheckError(LookupError):
    """The code has no such condition in that function, or more than one."""


@contextmanager
def without(checks: Sequence[Check]) -> Iterator[None]:
    """The build without these checks, and without them only."""
    by_function: dict[str, list[Check]] = {}
    for check in checks:
        by_function.setdefault(check.where, []).append(check)
    with ExitStack() as stack:
        for where, removed in by_function.items():
            stack.enter_context(_patched(where, removed))
        _forget()
        try:
            yield
        finally:
            stack.close()
            _forget()


def exists(check: Check) -> bool:
    """Whether the code has this check, once."""
    try:
        with without([check]):
            return True
    except (NoSuchCheckError, ImportError, AttributeError):
        return False


def _forget() -> None:
    """What was computed by the other build."""
    wire._codec.cache_clear()
    degree.find_degree.cache_clear()


@contextmanager
def _patched(where: str, checks: Sequence[Check]) -> Iterator[None]:
    module, path = _module_of(where)
    found: Any = module
    for name in path:
        found = inspect.getattr_static(found, name)
    if isinstance(found, property):
        found = found.fget
    found = inspect.unwrap(found) if callable(found) else found
    if not isinstance(found, FunctionType):
        with _with_entries(module, found, checks):
            yield
        return
    found = getattr(found, "__func__", found)
    kept = found.__code__
    found.__code__ = _compiled(module, ".".join(path), checks)
    try:
        yield
    finally:
        found.__code__ = kept


def _module_of(where: str) -> tuple[ModuleType, list[str]]:
    parts = where.split(".")
    for end in range(len(parts) - 1, 0, -1):
        name = ROOT + ".".join(parts[:end])
        try:
            return importlib.import_module(name), parts[end:]
        except ModuleNotFoundError:
            continue
    raise NoSuchCheckError(where)


@contextmanager
def _with_entries(module: ModuleType, table: dict[Any, Any], checks: Sequence[Check]) -> Iterator[None]:
    """A table with entries that it lacks."""
    names = vars(module)
    entries = {eval(c.what, names): eval(c.instead, names) for c in checks}  # noqa: S307
    if not isinstance(table, dict) or entries.keys() & table.keys():
        raise NoSuchCheckError(f"{checks[0].where} has {checks[0].what}")
    with patch.dict(table, entries):
        yield


def _compiled(module: ModuleType, qualname: str, checks: Sequence[Check]) -> CodeType:
    """The function's code without some of its checks."""
    source = Path(inspect.getsourcefile(module) or "")
    tree = ast.parse(source.read_text(encoding="utf-8"))
    node: Any = tree
    for name in qualname.split("."):
        node = next(n for n in node.body if isinstance(n, ast.FunctionDef | ast.ClassDef) and n.name == name)
    for check in checks:
        remover = _Remover(check)
        # The body only: a decorator or a default is no check.
        node.body = [remover.visit(statement) for statement in node.body]
        if remover.found != 1:
            raise NoSuchCheckError(f"{check.where} has {check.what!r} {remover.found} times")
    code = compile(ast.fix_missing_locations(tree), str(source), "exec")
    return next(c for c in _codes(code) if c.co_qualname == qualname)


def _codes(code: CodeType) -> Iterator[CodeType]:
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield constant
            yield from _codes(constant)


class _Remover(ast.NodeTransformer):
    """Takes one check out of a function's tree, or puts something in its place; counts how often it was there."""

    def __init__(self, check: Check) -> None:
        self.found = 0
        statement = ast.parse(check.what).body[0]
        self._text = ast.unparse(statement)
        self._statement = None if isinstance(statement, ast.Expr) else statement
        self._instead = check.instead

    def visit(self, node: ast.AST) -> Any:
        if self._instead and isinstance(node, ast.expr | ast.stmt) and ast.unparse(node) == self._text:
            self.found += 1
            made = ast.parse(self._instead).body[0]
            return made.value if isinstance(made, ast.Expr) and isinstance(node, ast.expr) else made
        return super().visit(node)

    def visit_If(self, node: ast.If) -> Any:
        refuses = isinstance(node.body[-1], ast.Raise) or ast.unparse(node.body[-1]) == "return None"
        if not self._instead and refuses:
            left = self._left(node.test, ast.Or)
            if left is None:
                return ast.Pass()
            node.test = left
        return self.generic_visit(node)

    def visit_Return(self, node: ast.Return) -> Any:
        if not self._instead and node.value is not None:
            node.value = self._left(node.value, ast.And) or ast.Constant(True)
        return self.generic_visit(node)

    def _left(self, test: ast.expr, joined: type[ast.boolop]) -> ast.expr | None:
        """What is left of a condition; None if nothing is."""
        if ast.unparse(test) == self._text:
            self.found += 1
            return None
        if isinstance(test, ast.BoolOp) and isinstance(test.op, joined):
            values = [v for v in test.values if ast.unparse(v) != self._text]
            self.found += len(test.values) - len(values)
            return values[0] if len(values) == 1 else ast.BoolOp(test.op, values)
        return test
