"""Searching a token sequence for its own last n-gram."""

from __future__ import annotations

import numpy as np


def continuation(text: np.ndarray, longest: int, width: int, latest: bool = True, full: bool = False) -> np.ndarray:
    """Up to `width` tokens that followed an earlier occurrence of the last n tokens of text [T], n from `longest` to 1.

    Longer n first; of several occurrences the latest or the earliest. With `full`, only occurrences that `width` tokens
    follow count. Empty if there is none. Cost: O(T) numpy comparisons for each n.
    """
    length = len(text)
    if width < 1:
        return text[:0]
    for size in range(min(longest, length - 1), 0, -1):
        candidates = np.flatnonzero(text[size - 1 : length - 1] == text[-1])
        for back in range(1, size):
            candidates = candidates[text[candidates + size - 1 - back] == text[-1 - back]]
        if full:
            candidates = candidates[candidates + size + width <= length]
        if len(candidates):
            start = int(candidates[-1 if latest else 0]) + size
            return text[start : start + width]
    return text[:0]
