"""The rules of the house: each takes the sources and yields its faults, one sentence each."""

import ast
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from tests.house import plan
from tests.house.sources import Import, Source, is_ours, read_sources, top

Sources = Mapping[str, Source]


def layer_of(module: str) -> str | None:
    """The longest name in LAYERS that holds the module; the bare package holds nothing but itself."""
    holders = [
        name for name in plan.LAYERS if module == name or (name != "orchestrator" and module.startswith(f"{name}."))
    ]
    return max(holders, key=len, default=None)


def imports_run_downward(sources: Sources) -> Iterator[str]:
    """Each layer imports from the layers below it, and from its part of the standard library and of the libraries."""
    for source in sources.values():
        name = layer_of(source.module)
        if name is None:
            yield f"{source.path} belongs to no layer: give it one in tests/house/plan.py"
            continue
        layer = plan.LAYERS[name]
        for found in source.imports:
            if not _is_allowed(found, layer):
                yield f"{source.path}:{found.line} imports {found.name}, which {name} may not"
        if layer.libraries_a_file is not None and len(source.libraries) > layer.libraries_a_file:
            yield f"{source.path} uses more than one library: {', '.join(source.libraries)}"


def _is_allowed(found: Import, layer: plan.Layer) -> bool:
    name = top(found.name)
    if is_ours(name):
        return layer_of(found.name) in layer.layers
    if name in plan.STANDARD:
        return name in layer.standard
    return plan.LIBRARY_OF.get(name) in layer.libraries


def nothing_dear_on_the_way(sources: Sources) -> Iterator[str]:
    """What the relay, the agent before its hello, PID 1 and the zygote import, by whatever detour."""
    for hurried in plan.HURRIED:
        for module in _reached(sources, hurried.starts):
            if module in hurried.never:
                yield f"{sources[module].path} is imported on the way from {hurried.starts[-1]}: {hurried.why}"
            for found in sources[module].imports:
                is_other = not found.later and not is_ours(found.name)
                if is_other and hurried.others is not None and top(found.name) not in hurried.others:
                    yield f"{sources[module].path}:{found.line} imports {found.name}: {hurried.why}"


def _reached(sources: Sources, starts: Iterable[str]) -> list[str]:
    reached: dict[str, None] = {}
    pending = list(starts)
    while pending:
        module = pending.pop()
        if module in sources and module not in reached:
            reached[module] = None
            pending += [found.name for found in sources[module].imports if not found.later]
            pending.append(module.rpartition(".")[0])  # importing a module runs its package
    return list(reached)


def no_cycles(sources: Sources) -> Iterator[str]:
    """No file needs itself to run, not even by an import inside a function."""
    done: set[str] = set()

    def walk(module: str, trail: Sequence[str]) -> Iterator[str]:
        if module in trail:
            yield f"a cycle of imports: {' → '.join((*trail[trail.index(module) :], module))}"
        elif module in sources and module not in done:
            for target in dict.fromkeys(found.name for found in sources[module].imports if not found.never):
                yield from walk(target, (*trail, module))
            done.add(module)

    for module in sources:
        yield from walk(module, ())


def the_host_loads_nothing(sources: Sources) -> Iterator[str]:
    """No word stands in the host's code that could run what a sandbox wrote."""
    for source in sources.values():
        if source.path.startswith("orchestrator/"):
            for node in ast.walk(source.tree):
                for word in plan.LOADERS.intersection(_words(node)):
                    yield f"{source.path}:{getattr(node, 'lineno', 0)} says {word}, which the host never does"


def _words(node: ast.AST) -> Iterable[str]:
    match node:
        case ast.Name(id=word) | ast.Attribute(attr=word):
            return (word,)
        case ast.alias(name=name) | ast.ImportFrom(module=str(name)):
            return name.split(".")
    return ()


def one_clock(sources: Sources) -> Iterator[str]:
    """Nobody asks for the time of day but the clock, which a test can replace."""
    for source in sources.values():
        if source.path != plan.CLOCK:
            for node in ast.walk(source.tree):
                if isinstance(node, ast.Attribute | ast.ImportFrom) and _asks_for_the_time(node):
                    yield f"{source.path}:{node.lineno} asks for the time of day: only {plan.CLOCK} does"


def _asks_for_the_time(node: ast.Attribute | ast.ImportFrom) -> bool:
    match node:
        case ast.Attribute(value=ast.Name(id=base) | ast.Attribute(attr=base), attr=word):
            return word in plan.WALL_CLOCKS.get(base, ())
        case ast.ImportFrom(module="time", names=aliases):
            return any(alias.name in plan.WALL_CLOCKS["time"] for alias in aliases)
    return False


def the_environment_is_read_in_named_places(sources: Sources) -> Iterator[str]:
    """Settings come from one place; who else looks at the environment is named, with the reason."""
    for source in sources.values():
        if source.path.startswith("orchestrator/") and source.path not in plan.ENVIRONMENT_READERS:
            for node in ast.walk(source.tree):
                if not isinstance(node, ast.Name) and not plan.ENVIRONMENT.isdisjoint(_words(node)):
                    yield f"{source.path}:{getattr(node, 'lineno', 0)} reads the environment: take it from the settings"


def no_borrowed_names(sources: Sources) -> Iterator[str]:
    """No file or folder is named like a library or a module of Python, which it could shadow."""
    for source in sources.values():
        for name in source.module.split(".")[1:]:
            if name != "__main__" and (name in plan.LIBRARY_OF or name in plan.STANDARD):
                yield f"{source.path} is named like {name}, which others import"


def nothing_grows_long(sources: Sources) -> Iterator[str]:
    """A long file or function has a second thing in it."""
    for source in sources.values():
        if source.lines > plan.MAX_FILE_LINES:
            yield f"{source.path} has {source.lines} lines; look for the second thing after {plan.MAX_FILE_LINES}"
        for node in ast.walk(source.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > plan.MAX_FUNCTION_LINES and f"{source.path}: {node.name}" not in plan.LONGER_FUNCTIONS:
                    yield f"{source.path}:{node.lineno} {node.name} has {lines} lines; look for the second thing in it"


RULES = (
    imports_run_downward,
    nothing_dear_on_the_way,
    no_cycles,
    the_host_loads_nothing,
    one_clock,
    the_environment_is_read_in_named_places,
    no_borrowed_names,
    nothing_grows_long,
)


def faults_of(root: Path) -> list[str]:
    """Everything below `root` that is against a rule."""
    sources = read_sources(root)
    return [fault for rule in RULES for fault in rule(sources)]
