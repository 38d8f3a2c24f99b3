"""Kernels are compiled wherever the package is installed."""

from __future__ import annotations

import numba
import numpy as np

from treewright.ops.jit import jit


def double(numbers: np.ndarray) -> float:
    return float(numbers.sum() * 2)


def test_where_machine_code_cannot_be_kept_it_is_compiled_in_memory(monkeypatch):
    own, asked = numba.njit, []

    def refusing(*kernels, cache=False):
        asked.append(cache)
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return own(*kernels)

    monkeypatch.setattr(numba, "njit", refusing)
    compiled = jit(double)
    assert asked == [True, False] and compiled(np.array([1.0, 2.0])) == 6.0
    assert compiled.py_func is double  # type: ignore[attr-defined]
