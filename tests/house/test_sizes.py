"""Files and functions stay small enough to be read in one go."""

from __future__ import annotations

import ast
from pathlib import Path

MOST_LINES_OF_A_FILE = 400
MOST_LINES_OF_A_FUNCTION = 60
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def python_files(root: Path) -> list[Path]:
    return [path for folder in ("src", "tests", "examples", "benchmarks") for path in (root / folder).rglob("*.py")]


def test_no_file_is_long(root):
    lengths = {str(path.relative_to(root)): len(path.read_text(encoding="utf-8").splitlines()) for path in python_files(root)}
    assert len(lengths) > 50
    assert {name: lines for name, lines in lengths.items() if lines > MOST_LINES_OF_A_FILE} == {}


def test_no_function_is_long(root):
    long = {}
    for path in python_files(root):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, FUNCTIONS):
                lines = (node.end_lineno or 0) - node.lineno + 1
                if lines > MOST_LINES_OF_A_FUNCTION:
                    long[f"{path.relative_to(root)}:{node.lineno} {node.name}"] = lines
    assert long == {}


def test_the_front_page_of_the_package_is_short(root):
    assert len((root / "src/treewright/__init__.py").read_text().splitlines()) <= 40


def test_examples_are_short(root):
    long = {path.name: len(path.read_text().splitlines()) for path in (root / "examples").glob("*.py")}
    assert {name: lines for name, lines in long.items() if lines > 60} == {}
