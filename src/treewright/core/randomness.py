"""Randomness is a seam: every random decision asks here and names its row, its position and its stream.

Draws are keyed, not sequential: the decision at (seed, row, position, stream) is the same whoever asks, in whatever
order. Plain sampling and sample-then-match therefore emit the same tokens, and a law can enumerate all outcomes by
putting another object with the same two methods in this place.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Protocol

import numpy as np

MASK = (1 << 64) - 1

# Drafters and verifiers must never share noise, so each has streams of its own.
DRAW, ACCEPT, DRAFT, SEARCH = 1, 2, 3, 4


class Randomness(Protocol):
    """What may be asked of chance."""

    def index(self, weights: np.ndarray, row: Hashable, position: int, stream: int, trial: int = 0) -> int:
        """An index drawn with probability proportional to weights [V] (>= 0, not all zero)."""

    def accept(self, probability: float, row: Hashable, position: int, trial: int = 0) -> bool:
        """True with the given probability."""

    def uniform(self, row: Hashable, position: int, stream: int, trial: int = 0) -> float:
        """A number in [0, 1). Continuous noise has no outcomes to enumerate, so what asks for it is tested by sampling."""


def _mix(value: int) -> int:
    """The splitmix64 finaliser: every input bit changes every output bit with probability near one half."""
    value = (value + 0x9E3779B97F4A7C15) & MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & MASK
    return value ^ (value >> 31)


class Keyed:
    """Uniforms keyed by (seed, row, position, stream, trial), and tokens by inverse CDF."""

    def __init__(self, seed: int) -> None:
        self.seed = _mix(seed & MASK)

    def uniform(self, row: Hashable, position: int, stream: int, trial: int = 0) -> float:
        """With 53 random bits."""
        mixed = _mix(_mix(self.seed ^ hash_key(row)) ^ position)
        return (_mix(mixed ^ ((trial << 8) | stream)) >> 11) * 2.0**-53

    def index(self, weights: np.ndarray, row: Hashable, position: int, stream: int, trial: int = 0) -> int:
        return inverse_cdf(weights, self.uniform(row, position, stream, trial))

    def accept(self, probability: float, row: Hashable, position: int, trial: int = 0) -> bool:
        return self.uniform(row, position, ACCEPT, trial) < probability


def hash_key(key: Hashable) -> int:
    """A number for a tuple of integers that, unlike hash(), is the same in every process."""
    mixed = 0
    for part in key if isinstance(key, tuple) else (key,):
        mixed = _mix(mixed ^ (int(part) & MASK))
    return mixed


def inverse_cdf(weights: np.ndarray, uniform: float) -> int:
    """The index at which the cumulated weights [V] first exceed uniform * total; never one of weight zero."""
    cumulated = np.cumsum(weights, dtype=np.float64)
    index = int(np.searchsorted(cumulated, uniform * cumulated[-1], side="right"))
    if index >= len(weights) or weights[index] <= 0:
        index = int(np.flatnonzero(weights)[-1])
    return index
