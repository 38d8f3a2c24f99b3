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

from treewright.core.answers import Answers, top_ids
from treewright.core.claims import ABSENT, Forest
from treewright.core.session import Opening, Recorder
from treewright.core.text import Text

Read = list[tuple[torch.Tensor, torch.Tensor | None]]
Reader = Callable[[list[np.ndarray]], Read]
"""Reads sequences of tokens; gives for each its logits [T, V] and its last hidden states [T, H] or None."""


class RecomputeSession:
    """A session that keeps no memory but the tokens, the live answers, and the answer after the last token it has seen."""

    def __init__(self, text: Text, opening: Opening, record: Recorder, read: Reader) -> None:
        self._text, self._opening, self._record, self._read = text, opening, record, read
        self._own: list[list[int]] = []
        self._root: list[tuple[torch.Tensor, torch.Tensor | None] | None] = []
        self._states: list[torch.Tensor | None] = []
        self._base = np.zeros(0, np.int64)
        self._pending = np.zeros(0, np.int64)
        self._answers: Answers | None = None
        self.seen = np.zeros(0, np.int64)
        self.prompt_top: np.ndarray | None = None

    def admit(self, text: Text, prompts: Sequence[Sequence[int]]) -> None:
        self._text = text
        self._own += [list(prompt) for prompt in prompts]
        self._root += [None] * len(prompts)
        self._states += [None] * len(prompts)
        added = text.prompt[-len(prompts) :]
        self._base = np.concatenate([self._base, added])
        self.seen = np.concatenate([self.seen, added - 1])
        if not (self._opening.prompt_top or self._opening.hidden):
            return
        answers = self._forward([np.array(prompt, np.int64) for prompt in prompts], "prefill")
        if self._opening.hidden:
            self._states[-len(prompts) :] = [None if hidden is None else hidden[:-1] for _, hidden in answers]
        if self._opening.prompt_top:
            longest = max(len(prompt) for prompt in prompts)
            top = np.full((len(prompts), longest, self._opening.prompt_top), ABSENT, np.int64)
            for row, (logits, _) in enumerate(answers):
                top[row, : len(logits)] = top_ids(logits, self._opening.prompt_top)
            self.prompt_top = top

    def root(self) -> Answers:
        return self.score(Forest(self._text.frontier()))

    def score(self, forest: Forest) -> Answers:
        known = self._answers
        scored = 0 if known is None else known.logits.shape[1]
        if known is not None and scored >= forest.columns:
            return known
        if known is None:
            self._pending = self._text.length - self.seen
        asked = [
            (row, path) for row in range(forest.rows) for path in self._leaf_paths(forest, row)
            if max(path, default=0) >= max(scored, 1) or (not scored and self._pending[row])
        ]  # fmt: skip
        read = self._forward([self._sequence(forest, row, path) for row, path in asked], "score") if asked else []
        answers = self._blank_answers(forest, read)
        for row in range(forest.rows):
            kept = self._root[row]
            if known is not None:
                _write(answers, row, list(range(scored)), known.logits[row], None if known.hidden is None else known.hidden[row])
            elif not self._pending[row] and kept is not None:
                _write(answers, row, [0], kept[0][None], None if kept[1] is None else kept[1][None])
        for (row, path), (logits, hidden) in zip(asked, read, strict=True):
            end = len(logits) - len(path)
            _write(answers, row, [0, *path], logits[end - 1 :], None if hidden is None else hidden[end - 1 :])
            self._states[row] = None if hidden is None else hidden[:end]
        self._answers = answers
        return answers

    def _blank_answers(self, forest: Forest, read: Read) -> Answers:
        logits, hidden = read[0] if read else next((root[0][None], root[1]) for root in self._root if root is not None)
        size = forest.rows, forest.columns
        states = None if hidden is None else torch.zeros(*size, hidden.shape[-1], dtype=hidden.dtype)
        return Answers(torch.zeros(*size, logits.shape[-1], dtype=logits.dtype), states)

    def states(self, row: int) -> torch.Tensor:
        states = self._states[row]
        if states is None:
            raise ValueError(f"row {row} has no hidden states: open the session with hidden=True and score first")
        return states

    def commit(self, paths: Sequence[Sequence[int]]) -> None:
        if self._answers is None:
            return
        logits, hidden = self._answers.logits, self._answers.hidden
        for row, path in enumerate(paths):
            kept = [column for column in path if column < logits.shape[1]]
            last, states = kept[-1] if kept else 0, self._states[row]
            self._root[row] = logits[row, last], None if hidden is None else hidden[row, last]
            if hidden is not None and states is not None:
                self._states[row] = torch.cat([states, hidden[row, kept]])
            self.seen[row] += self._pending[row] + len(kept)
        self._answers = None

    def select(self, rows: Sequence[int]) -> None:
        index = list(rows)
        self._own = [list(self._own[row]) for row in index]
        self._root, self._states = [self._root[row] for row in index], [self._states[row] for row in index]
        self._base, self.seen = self._base[index], self.seen[index]
        if self._answers is not None:
            self._answers, self._pending = self._answers.select(index), self._pending[index]

    def cache_bytes(self) -> int:
        return 0

    def _leaf_paths(self, forest: Forest, row: int) -> list[list[int]]:
        """Paths (columns) that together visit every present claim of the row once or more: what a claim sees, by depth.

        Right for trees, and for orphans that see one claim of each depth above their own (a lookahead window).
        """
        shape, view = forest.shape, 0 if forest.shape.shared else row
        present = np.flatnonzero(forest.token[row] != ABSENT)[1:]
        seen = shape.visible[view][np.ix_(present, present)]
        leaves = np.flatnonzero(seen.sum(axis=0) == 1)
        depth = shape.depth[view, present]
        return [present[sorted(np.flatnonzero(seen[leaf]), key=depth.__getitem__)].tolist() for leaf in leaves] or [[]]

    def _sequence(self, forest: Forest, row: int, path: list[int]) -> np.ndarray:
        grown = self._text.token[row, self._base[row] : self._text.length[row]]
        return np.concatenate([self._own[row], grown, forest.token[row, path]]).astype(np.int64)

    def _forward(self, sequences: list[np.ndarray], kind: str) -> Read:
        begin = time.perf_counter()
        read = self._read(sequences)
        columns = max(len(sequence) for sequence in sequences)
        self._record(kind, len(sequences), columns, time.perf_counter() - begin)
        return read


def _write(answers: Answers, row: int, columns: list[int], logits: torch.Tensor, hidden: torch.Tensor | None) -> None:
    answers.logits[row, columns] = logits
    if answers.hidden is not None and hidden is not None:
        answers.hidden[row, columns] = hidden
