"""Leading a row along given tokens, so that every method and every model begins behind them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


class Along:
    """A constraint that lets prompt i of a run continue with nothing but tokens[i], and with anything after them."""

    def __init__(self, tokens: Sequence[Sequence[int]], vocabulary: int) -> None:
        self._tokens, self._vocabulary = tokens, vocabulary

    def mask(self, row: Any, continuation: np.ndarray) -> np.ndarray:
        given, count = self._tokens[row[0]], len(continuation)
        if count >= len(given):
            return np.ones(self._vocabulary, bool)
        allowed = np.zeros(self._vocabulary, bool)
        allowed[given[count]] = True
        return allowed

    def allowed(self, row: Any, continuation: np.ndarray, token: int) -> bool:
        return bool(self.mask(row, continuation)[token])
