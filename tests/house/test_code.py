"""Typed arguments, docstrings on what is public, no hidden state, no probing of models."""

from __future__ import annotations

import ast
from collections.abc import Iterator

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
# Arguments that an interface of transformers hands over and that mean nothing to us.
UNUSED_BY_INTERFACE = {("treewright.models.memory", "update"), ("treewright.models.masked_session", "update")}
# Names that every file of a room has, explained once instead of in every file.
CONTRACT = {("methods", "parts"), ("cli", "run")}


def functions(tree: ast.Module) -> Iterator[ast.FunctionDef]:
    yield from (node for node in ast.walk(tree) if isinstance(node, FUNCTIONS))


def arguments(node: ast.FunctionDef) -> list[ast.arg]:
    spec = node.args
    every = [*spec.posonlyargs, *spec.args, *spec.kwonlyargs, *(arg for arg in (spec.vararg, spec.kwarg) if arg)]
    return [arg for arg in every if arg.arg not in ("self", "cls")]


def test_every_argument_is_typed(sources):
    untyped = [
        f"{source}:{node.lineno} {node.name}({arg.arg})"
        for source in sources for node in functions(source.tree) for arg in arguments(node) if arg.annotation is None
    ]  # fmt: skip
    assert not untyped, "\n".join(untyped)


def test_every_result_is_typed(sources):
    untyped = [f"{source}:{n.lineno} {n.name}" for source in sources for n in functions(source.tree) if n.returns is None]
    assert not untyped, "\n".join(untyped)


def test_public_functions_have_docstrings(sources):
    silent = [
        f"{source}:{node.lineno} {node.name}"
        for source in sources
        for node in source.tree.body
        if isinstance(node, FUNCTIONS) and not node.name.startswith("_") and not ast.get_docstring(node)
        and (source.room, node.name) not in CONTRACT
    ]  # fmt: skip
    assert not silent, "\n".join(silent)


def test_modules_have_docstrings(sources):
    assert [str(source) for source in sources if source.text.strip() and not ast.get_docstring(source.tree)] == []


def test_names_of_classes_and_functions(sources):
    wrong = []
    for source in sources:
        for node in ast.walk(source.tree):
            if isinstance(node, ast.ClassDef):
                plain = node.name.lstrip("_")
                if not plain[:1].isupper() or "_" in plain:
                    wrong.append(f"{source}:{node.lineno} class {node.name}")
            elif isinstance(node, FUNCTIONS) and node.name != node.name.lower():
                wrong.append(f"{source}:{node.lineno} def {node.name}")
    assert not wrong, "\n".join(wrong)


def test_no_keyword_arguments_are_dropped(sources):
    dropped = []
    for source in sources:
        for node in functions(source.tree):
            if node.args.kwarg and (source.name, node.name) not in UNUSED_BY_INTERFACE:
                used = {name.id for child in node.body for name in ast.walk(child) if isinstance(name, ast.Name)}
                if node.args.kwarg.arg not in used:
                    dropped.append(f"{source}:{node.lineno} {node.name}(**{node.args.kwarg.arg})")
    assert not dropped, "\n".join(dropped)


def test_nothing_writes_module_globals(sources):
    assert [f"{source}:{n.lineno}" for source in sources for n in ast.walk(source.tree) if isinstance(n, ast.Global)] == []


def test_models_are_not_probed(sources):
    """What a model can do is in its capability record; `hasattr` asks behind its back."""
    rooms = {"core", "ops", "parts", "methods", "engine", "api", "testing"}
    probing = [
        f"{source}:{node.lineno}"
        for source in sources if source.room in rooms
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "hasattr"
    ]  # fmt: skip
    assert not probing, "\n".join(probing)


def test_our_errors_are_raised_with_a_sentence(sources):
    errors = next(source for source in sources if source.name == "treewright.core.errors")
    names = {node.name for node in errors.tree.body if isinstance(node, ast.ClassDef)}
    assert "InputError" in names
    bare = []
    for source in sources:
        for node in ast.walk(source.tree):
            if isinstance(node, ast.Raise):
                called = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
                if isinstance(called, ast.Name) and called.id in names and not (isinstance(node.exc, ast.Call) and node.exc.args):
                    bare.append(f"{source}:{node.lineno}")
    assert not bare, "\n".join(bare)


def test_a_class_of_the_core_shares_its_name_with_none_that_meets_it(sources):
    """The rooms that decode speak the core's language; the tools beside it (bench, train ...) have words of their own."""
    rooms: dict[str, set[str]] = {}
    for source in sources:
        room = source.name.split(".")[1] if "." in source.name else ""
        rooms.setdefault(room, set()).update(node.name for node in source.tree.body if isinstance(node, ast.ClassDef))
    for room in ("ops", "models", "parts", "methods", "engine", "api", "testing"):
        assert sorted(rooms[room] & rooms["core"]) == []
