"""Exact tables: toy models over 3 to 8 tokens whose every law can be enumerated. The bench on which all laws are proven.

A table's logits are a fixed pseudo-random function of the last `order` tokens, so they cost nothing, differ at every
prefix, and need no weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch

from treewright.core.answers import Answers
from treewright.core.claims import Forest
from treewright.core.session import Capabilities, Opening, Recorder
from treewright.core.text import Text
from treewright.models.recompute import RecomputeSession

HIDDEN_SIZE = 4


class Table:
    """A left-to-right toy law.

    vocabulary: tokens 0 .. vocabulary-1. order: how many last tokens the law depends on. sharpness: standard deviation of
    the logits; 0 is uniform. likeness in [0, 1] with `like`: mixes in another table's logits, for a draft that is like
    its target.
    """

    def __init__(
        self, vocabulary: int, seed: int, order: int = 3, sharpness: float = 1.0,
        like: Table | None = None, likeness: float = 0.0,
    ) -> None:  # fmt: skip
        self.vocabulary, self.seed, self.order, self.sharpness = vocabulary, seed, order, sharpness
        self.like, self.likeness = like, likeness
        self.capabilities = Capabilities(vocabulary=vocabulary, hidden=True, hidden_size=HIDDEN_SIZE)
        self._row = lru_cache(maxsize=None)(self._make_row)

    def logits(self, prefix: Sequence[int]) -> np.ndarray:
        """The logits after `prefix`, [V] float64."""
        return self._row(tuple(int(token) for token in prefix[-self.order :]))

    def _make_row(self, context: tuple[int, ...]) -> np.ndarray:
        generator = np.random.default_rng([self.seed, len(context), *context])
        logits = generator.normal(size=self.vocabulary) * self.sharpness
        if self.like is not None:
            logits = (1 - self.likeness) * logits + self.likeness * self.like.logits(context)
        return logits

    def hidden(self, prefix: Sequence[int]) -> np.ndarray:
        """A direction that stands for the last hidden state after `prefix`, [HIDDEN_SIZE] float64, of length 1."""
        context = [int(token) for token in prefix[-self.order :]]
        state = np.random.default_rng([self.seed + 1, len(context), *context]).normal(size=HIDDEN_SIZE)
        return state / np.linalg.norm(state)

    def open(self, text: Text, opening: Opening, record: Recorder) -> RecomputeSession:
        def read(sequences: list[np.ndarray]) -> list[tuple[torch.Tensor, torch.Tensor | None]]:
            return [(self._read(s, self.logits), self._read(s, self.hidden) if opening.hidden else None) for s in sequences]

        return RecomputeSession(text, opening, record, read)

    @staticmethod
    def _read(sequence: np.ndarray, function: object) -> torch.Tensor:
        ends = range(1, len(sequence) + 1)
        return torch.from_numpy(np.stack([function(sequence[:end].tolist()) for end in ends]))  # type: ignore[operator]


class AnyOrderTable:
    """A toy any-order law: a canvas of slots, token `mask` where a slot is open, a law for each open slot that depends on
    all slots that are filled."""

    def __init__(self, vocabulary: int, seed: int, sharpness: float = 1.5) -> None:
        self.vocabulary, self.seed, self.sharpness, self.mask = vocabulary, seed, sharpness, vocabulary
        self.capabilities = Capabilities(vocabulary=vocabulary, order="any", mask=vocabulary)

    def field(self, canvas: np.ndarray) -> np.ndarray:
        """Probabilities for every slot of a canvas [T], [T, V] float64."""
        generator = np.random.default_rng([self.seed, *canvas.tolist()])
        logits = generator.normal(size=(len(canvas), self.vocabulary)) * self.sharpness
        exponent = np.exp(logits - logits.max(-1, keepdims=True))
        return exponent / exponent.sum(-1, keepdims=True)

    def open(self, text: Text, opening: Opening, record: Recorder) -> AnyOrderTableSession:
        return AnyOrderTableSession(self, text, record)


class AnyOrderTableSession:
    """Answers under each claim's own canvas: the text with the slots of the claim and its ancestors filled. The field of
    the last canvas that became text is kept, so it costs no second call."""

    def __init__(self, table: AnyOrderTable, text: Text, record: Recorder) -> None:
        self._table, self._text, self._record = table, text, record
        self._known: list[tuple[np.ndarray, np.ndarray] | None] = []
        self._live: list[list[tuple[np.ndarray, np.ndarray]]] = []
        self.seen = np.zeros(0, np.int64)
        self.prompt_top: np.ndarray | None = None

    def admit(self, text: Text, prompts: Sequence[Sequence[int]]) -> None:
        self._text, self.seen = text, text.length.copy()
        self._known += [None] * len(prompts)

    def root(self) -> Answers:
        return self.score(Forest(self._text.frontier()))

    def score(self, forest: Forest) -> Answers:
        self._live = self._live or [[] for _ in range(forest.rows)]
        computed = [self._extend(forest, row) for row in range(forest.rows)]
        if any(computed):
            self._record("score", forest.rows, max(computed), 0.0)
        fields = np.zeros((forest.rows, forest.columns, self._text.token.shape[1], self._table.vocabulary))
        for row, live in enumerate(self._live):
            for column, (canvas, field) in enumerate(live):
                fields[row, column, : len(canvas)] = field
        return Answers(torch.zeros(forest.rows, forest.columns, 0), field=fields)

    def _extend(self, forest: Forest, row: int) -> int:
        """Answers the columns of a row that are not live yet; how many of them had to be computed."""
        live, known, computed = self._live[row], self._known[row], 0
        for column in range(len(live), forest.columns):
            canvas = self._canvas(forest, row, column)
            if column == 0 and known is not None and np.array_equal(known[0], canvas):
                live.append(known)
            else:
                live.append((canvas, self._table.field(canvas)))
                computed += 1
        return computed

    def _canvas(self, forest: Forest, row: int, column: int) -> np.ndarray:
        canvas = self._text.of(row).copy()
        for step in forest.shape.path(row, column):
            if forest.slot is not None and forest.token[row, step] >= 0:
                canvas[forest.slot[row, step]] = forest.token[row, step]
        return canvas

    def states(self, row: int) -> torch.Tensor:
        raise ValueError("an any-order table has no hidden states; its capabilities say so")

    def commit(self, paths: Sequence[Sequence[int]]) -> None:
        if self._live:
            self._known = [live[path[-1] if path else 0] for live, path in zip(self._live, paths, strict=True)]
        self._live, self.seen = [], self._text.length.copy()

    def select(self, rows: Sequence[int]) -> None:
        self.seen, self._known = self.seen[list(rows)], [self._known[row] for row in rows]
        self._live = [list(self._live[row]) for row in rows] if self._live else []

    def cache_bytes(self) -> int:
        return 0
