"""Names of a namespace: which of them a cell's text binds, and which count as variables."""

import ast
from collections.abc import Iterable, Iterator
from types import ModuleType

_SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def countable(name: str) -> bool:
    """Whether a name can be a variable: not one that begins with an underscore."""
    return not name.startswith("_")


def is_module(value: object) -> bool:
    """By its real type: a hostile `__class__` is not asked."""
    return issubclass(type(value), ModuleType)


def bound_by(statements: Iterable[ast.stmt], last_line: int) -> list[str]:
    """The global names that statements beginning up to `last_line` bind by their text, inner scopes left out."""
    names: dict[str, None] = {}
    for statement in statements:
        if statement.lineno <= last_line:
            names.update(dict.fromkeys(_stores(statement)))
    return list(names)


def _stores(root: ast.AST) -> Iterator[str]:
    pending = [root]
    while pending:
        node = pending.pop()
        yield from _own_names(node)
        if isinstance(node, _SCOPES):
            pending += node.decorator_list
        elif isinstance(node, ast.comprehension):
            pending += [node.iter, *node.ifs]  # its target lives in a scope of its own
        elif not isinstance(node, ast.Lambda):
            pending += ast.iter_child_nodes(node)


def _own_names(node: ast.AST) -> Iterator[str]:
    match node:
        case ast.Name(id=name, ctx=ast.Store()):
            yield name
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            yield name
        case ast.alias(name=name, asname=asname):
            yield asname or name.partition(".")[0]
        case ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)) | ast.MatchMapping(rest=str(name)):
            yield name
        case ast.ExceptHandler(name=str(name)):
            yield name
