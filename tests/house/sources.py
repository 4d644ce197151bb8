"""Reads the program's files as syntax trees, and tells what each imports."""

import ast
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path

from tests.house.plan import FOLDERS, LIBRARY_OF, STANDARD


@dataclass(frozen=True, slots=True)
class Import:
    """One imported module; `later` where it happens in a function, as a program, or `never` but for type checkers."""

    name: str
    line: int
    later: bool
    never: bool


@dataclass(frozen=True, slots=True)
class Source:
    """One Python file. `module` is its name for Python: the agent's files are `agent.…`, build scripts `build.…`."""

    path: str
    module: str
    tree: ast.Module
    lines: int
    imports: tuple[Import, ...]

    @property
    def libraries(self) -> list[str]:
        """The libraries that it imports, by the names that pyproject.toml gives them; unknown ones by their own."""
        tops = {top(found.name) for found in self.imports}
        return sorted({LIBRARY_OF.get(name, name) for name in tops if not is_ours(name) and name not in STANDARD})


def top(module: str) -> str:
    """The first part of a module's name."""
    return module.partition(".")[0]


def is_ours(module: str) -> bool:
    """Whether it is part of the program."""
    return top(module) in ("orchestrator", "agent")


def files_in(root: Path) -> list[str]:
    """All files of the program, Python or not, by path below `root`."""
    found = (path.relative_to(root) for folder in FOLDERS for path in (root / folder).rglob("*") if path.is_file())
    kept = [path for path in found if not any(part.startswith((".", "__pycache__")) for part in path.parts)]
    return sorted(path.as_posix() for path in kept)


def read_sources(root: Path) -> dict[str, Source]:
    """The Python files of the program by module name."""
    texts = {path: (root / path).read_text("utf-8") for path in files_in(root) if path.endswith(".py")}
    known = {_module(path) for path in texts}
    sources = {}
    for path, text in texts.items():
        tree, module = ast.parse(text), _module(path)
        sources[module] = Source(path, module, tree, len(text.splitlines()), tuple(_imports(tree, known)))
    return sources


def _module(path: str) -> str:
    parts = path.removeprefix("sandbox-image/").removesuffix(".py").split("/")
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imports(tree: ast.Module, known: AbstractSet[str]) -> Iterator[Import]:
    later = {node for block in ast.walk(tree) if _runs_later(block) for node in ast.walk(block)}
    never = {node for block in ast.walk(tree) if _is_for_types(block) for node in ast.walk(block)}
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=aliases):
                names = [alias.name for alias in aliases]
            case ast.ImportFrom(module=base, names=aliases, level=level):
                # A relative one is named as it is written, and then belongs to no layer.
                home = "." * level + (base or "")
                names = [whole if (whole := f"{home}.{alias.name}") in known else home for alias in aliases]
            case _:
                continue
        for name in dict.fromkeys(names):
            yield Import(name, node.lineno, node in later or node in never, node in never)


def _runs_later(node: ast.AST) -> bool:
    match node:
        case ast.If(test=ast.Compare(left=ast.Name(id="__name__"))):
            return True
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)


def _is_for_types(node: ast.AST) -> bool:
    match node:
        case ast.If(test=ast.Name(id="TYPE_CHECKING")):
            return True
    return False
