"""A session driven by hand: the rounds of the engine without a method, for timing them and for reading logits."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from treewright.api import Loaded
from treewright.core.answers import Answers
from treewright.core.claims import Forest
from treewright.core.session import Opening
from treewright.core.text import Text


class Rounds:
    """Rows that hold `prompts` (token ids) and may gain `room` tokens each, in rounds of at most `claims` columns.

    text: the rows' tokens. forward_seconds: time in the model's own forwards so far, prompts included.
    """

    def __init__(self, loaded: Loaded, prompts: Sequence[Sequence[int]], claims: int, room: int) -> None:
        limits = [len(prompt) + room for prompt in prompts]
        self.forward_seconds = 0.0
        self.text = Text(max(limits))
        self._session = loaded.protocol.open(self.text, Opening(claims, len(prompts), max(limits)), self._record)
        self.text.admit(prompts, limits)
        self._session.admit(self.text, prompts)

    def _record(self, kind: str, rows: int, columns: int, seconds: float, share: float = 1.0) -> None:
        self.forward_seconds += seconds

    def forest(self) -> Forest:
        """A forest of the frontier alone."""
        return Forest(self.text.frontier())

    def score(self, forest: Forest) -> Answers:
        """One forward over the claims of `forest`."""
        return self._session.score(forest)

    def advance(self, path: Sequence[int], emitted: np.ndarray) -> None:
        """Appends emitted [R, n] and commits the columns `path` of every row."""
        for row, tokens in enumerate(emitted.tolist()):
            self.text.append(row, tokens)
        self._session.commit([path] * self.text.rows)
