"""Searching a token sequence for its own last n-gram."""

from __future__ import annotations

import numpy as np


def continuation(text: np.ndarray, longest: int, width: int, latest: bool = True, full: bool = False) -> np.ndarray:
    """Up to `width` tokens that followed an earlier occurrence of the last n tokens of text [T], n from `longest` to 1.

    Longer n first. Of several occurrences the earliest; or the latest that `width` tokens follow, and where there is none
    the one that most follow: in a text that repeats itself the very latest one has only a period behind it. With `full`, only
    occurrences that `width` tokens follow count. Empty if there is none. Cost: O(T) numpy comparisons for each n.
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
            whole = np.searchsorted(candidates, length - width - size, side="right")
            start = int(candidates[whole - 1 if latest and whole else 0]) + size
            return text[start : start + width]
    return text[:0]


def continuations(text: np.ndarray, longest: int, width: int) -> list[np.ndarray]:
    """Up to `width` tokens behind every earlier occurrence of the last n tokens of text [T], for the largest n from `longest`
    to 1 that has one; latest first. Cost: as `continuation`."""
    length = len(text)
    if width < 1:
        return []
    for size in range(min(longest, length - 1), 0, -1):
        windows = np.lib.stride_tricks.sliding_window_view(text[:-1], size)
        starts = np.flatnonzero((windows == text[length - size :]).all(-1)) + size
        if len(starts):
            return [text[start : start + width] for start in starts[::-1].tolist()]
    return []
