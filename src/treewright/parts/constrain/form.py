"""Tokens that a model asks for in every text: one to begin with, one to end with at the full length, sequences never written.

Encoder-decoders bring such rules in their generation configuration (a language's id first, no padding). What must stand at
a place stands there whatever is banned, as transformers orders its processors.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np

from treewright.core.roles import Constraint


class FixedTokens:
    """A constraint of V tokens. first: what every text begins with. last: for each prompt, token number length[prompt] of a
    text that comes so far. banned: sequences; the last token of each is forbidden where the others stand before it, `start`
    counted as text."""

    def __init__(
        self,
        vocabulary: int,
        first: int | None,
        last: Sequence[int | None],
        banned: Sequence[Sequence[int]],
        start: Sequence[int],
        length: Sequence[int],
    ) -> None:
        self._vocabulary, self._first, self._last, self._length = vocabulary, first, tuple(last), tuple(length)
        self._start = np.array(start, np.int64)
        self._banned = [(np.array(word[:-1], np.int64), word[-1]) for word in banned]

    def mask(self, row: Hashable, continuation: np.ndarray) -> np.ndarray:
        prompt = row[0]  # type: ignore[index]
        last = self._last[prompt]
        at_end = last is not None and len(continuation) == self._length[prompt] - 1
        fixed = last if at_end else self._first if len(continuation) == 0 else None
        allowed = np.full(self._vocabulary, fixed is None)
        if fixed is not None:
            allowed[fixed] = True
            return allowed
        written = np.concatenate([self._start, continuation])
        for before, token in self._banned:
            if len(before) <= len(written) and (written[len(written) - len(before) :] == before).all():
                allowed[token] = False
        return allowed

    def allowed(self, row: Hashable, continuation: np.ndarray, token: int) -> bool:
        return bool(self.mask(row, continuation)[token])


class BehindFirst:
    """A constraint that begins behind the first token, which the model fixes."""

    def __init__(self, constraint: Constraint, vocabulary: int) -> None:
        self._constraint, self._vocabulary = constraint, vocabulary

    def mask(self, row: Hashable, continuation: np.ndarray) -> np.ndarray:
        if len(continuation) == 0:
            return np.ones(self._vocabulary, bool)
        return self._constraint.mask(row, continuation[1:])

    def allowed(self, row: Hashable, continuation: np.ndarray, token: int) -> bool:
        return len(continuation) == 0 or self._constraint.allowed(row, continuation[1:], token)
