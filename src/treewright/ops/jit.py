"""Loops over small arrays, compiled by numba: what one round of a drafter does between two calls of a model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

Kernel = TypeVar("Kernel", bound=Callable[..., Any])


def jit(kernel: Kernel) -> Kernel:
    """`kernel` compiled at its first call, a second or two once for each installation: machine code is kept on disk, beside the
    source or in the user's cache, and only in memory where neither can be written.

    Kernels that call each other, and the constants that they read, stand in one file: numba looks at the file of the outermost
    for whether code on disk is stale.
    """
    try:
        return cast(Kernel, numba.njit(cache=True, nogil=True)(kernel))
    except RuntimeError:
        return cast(Kernel, numba.njit(nogil=True)(kernel))
