"""The session of recurrent and hybrid models: every leaf path goes on from its row's state, a little way behind the frontier.

A state cannot be cut back, so claims are read from copies and the memory itself moves only over tokens that are text. A
forward gives the state after its last token and none in between. So the memory may lag: tokens of the text that are not in
it are read again, in front of the claims, in the same forward. Where a path is accepted whole, its state is kept and the lag
is gone (plain decoding never has any); once `LAG` tokens have gathered, one forward of its own moves the memory on. That is
one call in `LAG` tokens, where restoring and replaying after every round would be one call a round.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from treewright.core.answers import Answers
from treewright.core.claims import Forest
from treewright.core.layers import LayerPlan
from treewright.core.session import Opening, Recorder
from treewright.core.text import Text
from treewright.models.recompute import Reading, RecomputeSession
from treewright.models.recurrent import GoesOn, read_on
from treewright.models.states import Copies, StateLayout, States

CHUNK = 512
LAG = 16
CACHES = 4
"""Forwards of a round whose states are held; a search that asks often reads what it accepts again."""

STEP = 8
"""The memory moves by multiples of this many tokens, so that rows of different lag move in the same forward."""


class RecurrentSession(RecomputeSession):
    """`RecomputeSession` with a memory. `seen` counts what was read and committed, `_states.stored` what need not be read
    again; at least the last token of a row is always read again, so that its answer comes with the claims'."""

    def __init__(self, model: GoesOn, layout: StateLayout, text: Text, opening: Opening, record: Recorder) -> None:
        super().__init__(text, opening, record, self._refuse, model.head)
        self._model = model
        self._memory = States(layout, opening.rows, opening.length + 1)
        self._reached: dict[tuple[int, tuple[int, ...]], tuple[Copies, int, int, int]] = {}
        self._behind: list[torch.Tensor | None] = []

    @staticmethod
    def _refuse(sequences: list[np.ndarray], plans: Sequence[LayerPlan] = ()) -> list[Reading]:
        raise ValueError("a model that keeps states runs all its layers (Capabilities.layers is 0); ask it without a plan")

    def _read_prompts(self, prompts: list[np.ndarray]) -> None:
        first = len(self._own) - len(prompts)
        shift = max(len(prompt) for prompt in prompts) - int(self._text.prompt[first:].min())
        self._memory.admit(len(prompts), self._opening.length + 1 + max(0, shift))
        self._behind += [None] * len(prompts)
        read = self._move_on({first + row: prompt[:-1] for row, prompt in enumerate(prompts)}, "prefill")
        if self._opening.prompt_top:
            vocabulary = self._model.capabilities.vocabulary
            none = torch.zeros(0, vocabulary)
            logits = [torch.cat(read[first + row]) if read[first + row] else none for row in range(len(prompts))]
            self._note_top(logits, max(map(len, prompts)))

    def _move_on(self, unread: dict[int, np.ndarray], kind: str) -> dict[int, list[torch.Tensor]]:
        """Reads {row: tokens} into the memory; gives the logits of each row's pieces if someone asked for them.

        Rows go together as far as the shortest reaches, then on without it: no forward has padding, which would change the
        state of the padded row.
        """
        logits_of: dict[int, list[torch.Tensor]] = {row: [] for row in unread}
        wanted, done = self._opening.prompt_top > 0 and kind == "prefill", 0
        while rows := [row for row, tokens in unread.items() if len(tokens) > done]:
            count = min(CHUNK, min(len(unread[row]) for row in rows) - done)
            span = self._memory.span(rows)
            pieces = [unread[row][done : done + count] for row in rows]
            answers, cache = self._read_on(rows, pieces, kind, keep=0 if wanted else 1)
            self._memory.keep(cache, span, range(len(rows)), rows, count)
            for place, row in enumerate(rows):
                if wanted:
                    logits_of[row].append(answers.logits[place])
                self._remember(row, None if answers.hidden is None else answers.hidden[place])
            done += count
        return logits_of

    def _remember(self, row: int, hidden: torch.Tensor | None) -> None:
        """Adds hidden states of tokens that are in memory now."""
        known = self._behind[row]
        self._behind[row] = hidden if known is None or hidden is None else torch.cat([known, hidden])

    def _read_on(self, rows: Sequence[int], sequences: Sequence[np.ndarray], kind: str, keep: int = 0) -> tuple[Answers, Copies]:
        begin = self._model.timed()
        layers = self._opening.layers and kind == "score"
        answers, cache = read_on(self._model, self._memory, rows, sequences, keep, self._opening.hidden, layers)
        self._record(kind, len(rows), max(map(len, sequences)), self._model.timed() - begin)
        return answers, cache

    def _read_paths(self, forest: Forest, asked: list[tuple[int, list[int]]]) -> list[Reading]:
        if self._answers is None:
            self._catch_up({row for row, _ in asked}, forest)
        rows = [row for row, _ in asked]
        sequences = [self._sequence(forest, row, path)[self._memory.stored[row] :] for row, path in asked]
        count, span = max(map(len, sequences)), self._memory.span(rows)
        answers, cache = self._read_on(rows, sequences, "score")
        if len({id(reached[0]) for reached in self._reached.values()}) >= CACHES:
            self._reached.clear()
        for place, (row, path) in enumerate(asked):
            if len(sequences[place]) == count:
                self._reached[row, tuple(path)] = cache, place, span, count
        return [Reading.of(answers, (place, slice(len(sequence)))) for place, sequence in enumerate(sequences)]

    def _catch_up(self, rows: set[int], forest: Forest) -> None:
        """Moves the memory on where it has fallen `LAG` tokens behind, and then every row that can take a `STEP`."""
        behind = {row: self._sequence(forest, row, [])[self._memory.stored[row] : -1] for row in sorted(rows)}
        if any(len(tokens) >= LAG for tokens in behind.values()):
            steps = {row: tokens[: len(tokens) // STEP * STEP] for row, tokens in behind.items()}
            self._move_on({row: tokens for row, tokens in steps.items() if len(tokens)}, "score")

    def states(self, row: int) -> torch.Tensor:
        known = [states for states in (self._behind[row], self._states[row]) if states is not None]
        if not known and self._opening.hidden:
            return torch.zeros(0, self._model.capabilities.hidden_size, dtype=self._model.dtype, device=self._model.device)
        return torch.cat(known) if known else super().states(row)

    @torch.inference_mode()
    def commit(self, paths: Sequence[Sequence[int]]) -> None:
        scored = 0 if self._answers is None else self._answers.logits.shape[1]
        own = self._own_paths(paths)
        super().commit(paths)
        by_cache: dict[tuple[int, int, int], list[tuple[int, int, Copies]]] = {}
        for row, path in enumerate(own):
            reached = self._reached.get((row, tuple(path)))
            if reached is not None and all(column < scored for column in path):
                cache, place, span, count = reached
                if self._memory.stored[row] + count < self._own_length(row):
                    by_cache.setdefault((id(cache), span, count), []).append((place, row, cache))
        for (_, span, count), kept in by_cache.items():
            places, rows = [place for place, _, _ in kept], [row for _, row, _ in kept]
            self._memory.keep(kept[0][2], span, places, rows, count)
            for row in rows:
                states = self._states[row]
                if states is not None:
                    self._remember(row, states)
                    self._states[row] = states[:0]
        self._reached.clear()

    def _start_afresh(self) -> None:
        super()._start_afresh()
        self._reached.clear()

    def _own_length(self, row: int) -> int:
        return len(self._own[row]) + int(self._text.length[row] - self._base[row])

    def select(self, rows: Sequence[int]) -> None:
        super().select(rows)
        self._memory.select(rows)
        self._behind = [self._behind[row] for row in rows]
        self._reached = {
            (target, path): found for target, source in enumerate(rows)
            for (row, path), found in self._reached.items() if row == source
        }  # fmt: skip

    def cache_bytes(self) -> int:
        return self._memory.bytes()
