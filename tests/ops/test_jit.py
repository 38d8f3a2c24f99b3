"""Kernels are compiled wherever the package is installed."""

from __future__ import annotations

import ast
from pathlib import Path

import numba
import numpy as np

import treewright
from treewright.ops.jit import jit


def double(numbers: np.ndarray) -> float:
    return float(numbers.sum() * 2)


def test_where_machine_code_cannot_be_kept_it_is_compiled_in_memory(monkeypatch):
    own, asked = numba.njit, []

    def refusing(*kernels, nogil, cache=False):
        asked.append(cache)
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return own(*kernels, nogil=nogil)

    monkeypatch.setattr(numba, "njit", refusing)
    compiled = jit(double)
    assert asked == [True, False] and compiled(np.array([1.0, 2.0])) == 6.0
    assert compiled.py_func is double  # type: ignore[attr-defined]


def test_what_kernels_read_stands_in_their_own_file():
    """numba keeps code for as long as that file stays the same."""
    files = [path for path in Path(treewright.__file__).parent.rglob("*.py") if "\n@jit\n" in path.read_text()]
    assert len(files) >= 2
    for path in files:
        imports = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)]
        names = [alias.name for node in imports for alias in node.names]
        assert [name for name in names if name.isupper()] == [], path
