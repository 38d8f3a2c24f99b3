"""The slow session that is right for every left-to-right model: each claim's whole path is read anew.

Exact tables use it, and transformers models whose memory cannot hold a tree (ALiBi without positions, recurrent state):
there every distinct leaf path becomes a row of one right-padded forward without a cache, which no causal model can tell
from a row of its own. Cost: one forward a round over (prompt + text + path) tokens for every leaf.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np
import torch

from treewright.core.answers import Answers
from treewright.core.claims import ABSENT, Forest
from treewright.core.session import Opening, Recorder
from treewright.core.text import Text

Reader = Callable[[list[np.ndarray]], list[tuple[torch.Tensor, torch.Tensor | None]]]
"""Reads sequences of tokens; gives for each its logits [T, V] and its last hidden states [T, H] or None."""


class RecomputeSession:
    """A session that keeps no memory but the tokens."""

    def __init__(self, text: Text, opening: Opening, record: Recorder, read: Reader) -> None:
        self._text, self._opening, self._record, self._read = text, opening, record, read
        self._own: list[list[int]] = []
        self._base = np.zeros(0, np.int64)
        self.seen = np.zeros(0, np.int64)
        self.prompt_top: np.ndarray | None = None

    def admit(self, text: Text, prompts: Sequence[Sequence[int]]) -> None:
        self._text = text
        self._own += [list(prompt) for prompt in prompts]
        added = text.prompt[-len(prompts) :]
        self._base = np.concatenate([self._base, added])
        self.seen = np.concatenate([self.seen, added - 1])
        if self._opening.prompt_top:
            answers = self._forward([np.array(prompt, np.int64) for prompt in prompts], "prefill")
            longest = max(len(prompt) for prompt in prompts)
            top = np.full((len(prompts), longest, self._opening.prompt_top), ABSENT, np.int64)
            for row, (logits, _) in enumerate(answers):
                top[row, : len(logits)] = logits.topk(self._opening.prompt_top, dim=-1).indices.numpy()
            self.prompt_top = top

    def root(self) -> Answers:
        return self.score(Forest(self._text.frontier()))

    def score(self, forest: Forest) -> Answers:
        rows, columns = forest.rows, forest.columns
        paths = {row: self._leaf_paths(forest, row) for row in range(rows)}
        sequences = [(row, path) for row in range(rows) for path in paths[row]]
        read = self._forward([self._sequence(forest, row, path) for row, path in sequences], "score")
        first = read[0][0]
        logits = torch.zeros((rows, columns, first.shape[-1]), dtype=first.dtype)
        hidden = None if read[0][1] is None else torch.zeros((rows, columns, read[0][1].shape[-1]), dtype=read[0][1].dtype)
        for (row, path), (path_logits, path_hidden) in zip(sequences, read, strict=True):
            start = len(path_logits) - len(path) - 1
            for offset, column in enumerate([0, *path]):
                logits[row, column] = path_logits[start + offset]
                if hidden is not None and path_hidden is not None:
                    hidden[row, column] = path_hidden[start + offset]
        return Answers(logits, hidden)

    def commit(self, paths: Sequence[Sequence[int]]) -> None:
        self.seen = self._text.length - 1

    def select(self, rows: Sequence[int]) -> None:
        self._own = [list(self._own[row]) for row in rows]
        self._base, self.seen = self._base[list(rows)], self.seen[list(rows)]

    def cache_bytes(self) -> int:
        return 0

    def _leaf_paths(self, forest: Forest, row: int) -> list[list[int]]:
        """Paths (columns) that together visit every present claim of the row once or more."""
        present = [column for column in range(1, forest.columns) if forest.token[row, column] != ABSENT]
        parent = forest.shape.parent[0 if forest.shape.shared else row]
        inner = {int(parent[column]) for column in present}
        return [forest.shape.path(row, column) for column in present if column not in inner] or [[]]

    def _sequence(self, forest: Forest, row: int, path: list[int]) -> np.ndarray:
        grown = self._text.token[row, self._base[row] : self._text.length[row]]
        return np.concatenate([self._own[row], grown, forest.token[row, path]]).astype(np.int64)

    def _forward(
        self, sequences: list[np.ndarray], kind: str
    ) -> list[tuple[torch.Tensor, torch.Tensor | None]]:
        begin = time.perf_counter()
        read = self._read(sequences)
        columns = max(len(sequence) for sequence in sequences)
        self._record(kind, len(sequences), columns, time.perf_counter() - begin)
        return read
