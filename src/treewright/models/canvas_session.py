"""What sessions of any-order models share: canvases that are live in a round, and the answer that outlasts it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from treewright.core.answers import Answers
from treewright.core.claims import Forest
from treewright.core.field import Canvas
from treewright.core.layers import LayerPlan
from treewright.core.session import Recorder
from treewright.core.text import Text


@dataclass(frozen=True, slots=True)
class Answered:
    """A canvas, tokens [T], what the model said of it, and the slots [first, end) that were computed anew for it."""

    tokens: np.ndarray
    canvas: Canvas
    first: int
    end: int


class CanvasSession:
    """Answers under each claim's own canvas: the text with the slots of the claim and its ancestors filled. The answer to
    the canvas that became text is kept for the next round, so that it costs no second call; for a round that asks for other
    slots it is another answer, and is not used."""

    def __init__(self, text: Text, record: Recorder) -> None:
        self._text, self._record = text, record
        self._known: list[Answered | None] = []
        self._live: list[list[Answered | None]] = []
        self.seen = np.zeros(0, np.int64)
        self.prompt_top: np.ndarray | None = None

    def admit(self, text: Text, prompts: Sequence[Sequence[int]]) -> None:
        self._text, self.seen = text, text.length.copy()
        self._known += [None] * len(prompts)

    def root(self) -> Answers:
        return self.score(Forest(self._text.frontier()))

    def score(self, forest: Forest, plans: Sequence[LayerPlan] = ()) -> Answers:
        raise NotImplementedError

    def sketch(self, forest: Forest, *plans: LayerPlan) -> Answers:
        raise ValueError("an any-order model runs all its layers; its capabilities say so")

    def sketch_text(self, first: np.ndarray, count: int, plan: LayerPlan) -> Answers:
        raise ValueError("an any-order model runs all its layers; its capabilities say so")

    def adopt(self, columns: np.ndarray) -> None:
        raise ValueError("the claims of an any-order model are canvases, and keep their numbers")

    def _begin(self, forest: Forest) -> None:
        """Room for the live answers of each row, in the first `score` of a round."""
        self._live = self._live or [[] for _ in range(forest.rows)]

    def _kept_answer(self, row: int, tokens: np.ndarray, first: int, end: int) -> Answered | None:
        """What was said of this very canvas at the last commit, where the same slots are asked for."""
        known = self._known[row]
        if known is None or (known.first, known.end) != (first, end) or not np.array_equal(known.tokens, tokens):
            return None
        return known

    def _canvases(self) -> list[list[Canvas | None]]:
        return [[None if answer is None else answer.canvas for answer in live] for live in self._live]

    def states(self, row: int) -> torch.Tensor:
        raise ValueError("the session of an any-order model keeps no hidden states; its capabilities say so")

    def commit(self, paths: Sequence[Sequence[int]]) -> None:
        if self._live:
            self._known = [live[path[-1] if path else 0] for live, path in zip(self._live, paths, strict=True)]
        self._live, self.seen = [], self._text.length.copy()

    def select(self, rows: Sequence[int]) -> None:
        self.seen, self._known = self.seen[list(rows)], [self._known[row] for row in rows]
        self._live = [list(self._live[row]) for row in rows] if self._live else []

    def cache_bytes(self) -> int:
        return 0
