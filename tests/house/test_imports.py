"""Who may import whom. Imports inside functions and under TYPE_CHECKING count like any other."""

from __future__ import annotations

import ast

import pytest

# Room -> rooms of ours it may import, beside itself. `methods` may not even import itself: no method knows another.
MAY_IMPORT: dict[str, set[str]] = {
    "core": set(),
    "ops": {"core"},
    "models": {"core", "ops"},
    "parts": {"core", "ops"},
    "engine": {"core", "ops"},
    "methods": {"core", "ops", "parts"},
    "api": {"core", "ops", "models", "parts", "engine"},
    "testing": {"core", "ops", "parts", "models", "engine", "api"},
    "interop": {"core", "api"},
    "train": {"core", "ops", "parts", "models", "api"},
    "bench": {"core", "api", "interop", "testing", "train", "plots"},
    "plots": {"core"},
    "cli": {"core", "api", "interop", "testing", "train", "bench", "plots"},
}
MAY_IMPORT_TRANSFORMERS = {"models", "train", "interop"}
# The package itself is only names, found when they are used; `python -m treewright` is the command.
WORDS = {"auto"}
"""Names of methods that are also words of transformers': a dtype is "auto"."""
FRONT = {"": {"api", "core", "models", "interop", "testing"}, "__main__": {"cli"}}


def imported(source) -> set[str]:
    """Dotted names of everything a module imports; for `from a import b` both a and a.b."""
    found = set()
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = source.name if source.path.name == "__init__.py" else source.name.rpartition(".")[0]
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, base]) if base else ".".join(above)
            found |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
    return found


def ours(source, names: set[str]) -> set[str]:
    """The modules of the package among what a module imports."""
    return {name for name in imported(source) if name in names and name != "treewright"}


@pytest.fixture(scope="module")
def graph(sources) -> dict[str, set[str]]:
    names = {source.name for source in sources}
    return {source.name: ours(source, names) for source in sources}


def test_every_room_is_in_the_list(sources):
    assert {source.room for source in sources} <= MAY_IMPORT.keys() | FRONT.keys()


def test_rooms_import_only_what_they_may(sources, graph):
    wrong = []
    for source in sources:
        allowed = MAY_IMPORT.get(source.room, FRONT.get(source.room, set())) | ({source.room} - {"methods"})
        for target in graph[source.name]:
            if target.split(".")[1] not in allowed:
                wrong.append(f"{source} imports {target}")
    assert not wrong, "\n".join(wrong)


def test_nobody_inside_imports_the_front_page(sources):
    """`import treewright` from within would tie a room to every other."""
    importers = {source.name for source in sources if "treewright" in imported(source)}
    outermost = {"cli", "bench"}
    assert sorted(name for name in importers if name.split(".")[1] not in outermost) == []


def test_only_some_rooms_know_transformers(sources):
    knowing = {source.room for source in sources if any(n.split(".")[0] == "transformers" for n in imported(source))}
    assert "models" in knowing
    assert knowing <= MAY_IMPORT_TRANSFORMERS


def test_there_is_no_import_cycle(graph):
    """Every module can be put after all modules it imports."""
    left = {name: set(targets) - {name} for name, targets in graph.items()}
    while left:
        free = {name for name, targets in left.items() if not targets & left.keys()}
        if not free:
            break
        left = {name: targets for name, targets in left.items() if name not in free}
    # What remains contains the cycles and whoever leans on them; keep those that are reached from themselves.
    assert sorted(name for name in left if name in reached(left, name)) == []


def reached(graph: dict[str, set[str]], start: str) -> set[str]:
    seen: set[str] = set()
    waiting = list(graph[start])
    while waiting:
        name = waiting.pop()
        if name in graph and name not in seen:
            seen.add(name)
            waiting += graph[name]
    return seen


def test_no_method_is_named_where_methods_are_run(sources, method_files):
    """The engine, the api and the parts know no method by name; `plain` is the law itself, so its name may be used."""
    names = {path.stem for path in method_files} - {"plain"} - WORDS
    rooms = {"core", "ops", "models", "parts", "engine", "api"}
    wrong = [
        f"{source}:{node.lineno} {node.value}"
        for source in sources if source.room in rooms
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Constant) and node.value in names
    ]  # fmt: skip
    assert not wrong, "\n".join(wrong)
