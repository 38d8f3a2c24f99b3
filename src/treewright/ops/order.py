"""The order of values, as far as somebody asks for it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

FIRST_GUESS = 16
"""Places that are sorted at first; eight times as many whenever they did not suffice."""


def falling(values: np.ndarray) -> Iterator[int]:
    """Indices of values [V] from the largest to the smallest, equal ones by index, those of -inf left out. Asking for the
    first few costs one pass over the values."""
    given, size = 0, FIRST_GUESS
    while given < len(values):
        least = -np.inf if size >= len(values) else np.partition(values, -size)[-size]
        # All that equal the last are sorted along, so that a wider cut begins with the same order.
        among = np.flatnonzero(values >= least)
        order = among[np.argsort(-values[among], kind="stable")]
        for index in order[given:]:
            if values[index] == -np.inf:
                return
            yield int(index)
        given, size = len(order), size * 8
