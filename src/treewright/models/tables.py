"""Exact tables: toy models over 3 to 8 tokens whose every law can be enumerated. The bench on which all laws are proven.

A table's logits are a fixed pseudo-random function of the last `order` tokens, so they cost nothing, differ at every
prefix, and need no weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from itertools import product

import numpy as np
import torch

from treewright.core.answers import Answers
from treewright.core.claims import ABSENT, Forest
from treewright.core.field import Canvas, Field
from treewright.core.layers import LayerPlan
from treewright.core.session import Capabilities, Opening, Recorder
from treewright.core.text import Text
from treewright.models.canvas_session import Answered, CanvasSession
from treewright.models.recompute import Mix, Reading, RecomputeSession
from treewright.ops.softmax import softmax

HIDDEN_SIZE = 4
READINGS = 1024
"""So many readings of whole sequences a table keeps, because laws play the same few texts thousands of times."""


class Table:
    """A left-to-right toy law.

    vocabulary: tokens 0 .. vocabulary-1. order: how many last tokens the law depends on. sharpness: standard deviation of
    the logits; 0 is uniform. likeness in [0, 1] with `like`: mixes in another table's logits, for a draft that is like
    its target. layers: exit layers below the last one, the deeper the more like it.
    """

    def __init__(
        self, vocabulary: int, seed: int, order: int = 3, sharpness: float = 1.0,
        like: Table | None = None, likeness: float = 0.0, layers: int = 8,
    ) -> None:  # fmt: skip
        self.vocabulary, self.seed, self.order, self.sharpness = vocabulary, seed, order, sharpness
        self.like, self.likeness, self.layers = like, likeness, layers
        self.capabilities = Capabilities(
            vocabulary=vocabulary, hidden=True, hidden_size=HIDDEN_SIZE, exit_layers=True, layers=layers, embeddings=True
        )
        self._row = lru_cache(maxsize=None)(self._make_row)
        self._depths = lru_cache(maxsize=None)(self._make_depths)
        self._read = lru_cache(maxsize=READINGS)(self._make_reading)

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

    def states(self, prefix: Sequence[int]) -> np.ndarray:
        """What stands for the hidden states before each layer after `prefix`, [L, V] float64: logits before their norm."""
        return self._depths(tuple(int(token) for token in prefix[-self.order :]))

    def _make_depths(self, context: tuple[int, ...]) -> np.ndarray:
        noise = np.random.default_rng([self.seed + 2, len(context), *context]).normal(size=(self.layers, self.vocabulary))
        depth = np.arange(self.layers)[:, None] / self.layers
        return depth * self.logits(context) + (1 - depth) * noise

    def exit_logits(self, prefix: Sequence[int], layer: int, norm: bool = True) -> np.ndarray:
        """The logits [V] if the table ended after `layer`; layer L is its own law."""
        if layer == self.layers:
            return self.logits(prefix)
        state = self.states(prefix)[layer]
        return state / np.sqrt((state**2).mean()) if norm else state

    def open(self, text: Text, opening: Opening, record: Recorder) -> RecomputeSession:
        def read(sequences: list[np.ndarray], plans: Sequence[LayerPlan] = ()) -> list[Reading]:
            return [
                self._read(tuple(sequence.tolist()), depth, opening.hidden, opening.layers)
                for sequence, depth in zip(sequences, self._ends(plans, len(sequences)), strict=True)
            ]  # fmt: skip

        def read_mixed(sequences: list[np.ndarray], mixes: list[Mix], plans: Sequence[LayerPlan] = ()) -> list[Reading]:
            depths = self._ends(plans, len(sequences))
            logits = [
                _at_each_end(sequence.tolist(), partial(self.mixed_logits, mix=mix, layer=depth))
                for sequence, mix, depth in zip(sequences, mixes, depths, strict=True)
            ]  # fmt: skip
            return [reading._replace(logits=found) for reading, found in zip(read(sequences), logits, strict=True)]

        return RecomputeSession(text, opening, record, read, TableHead(), read_mixed)

    def _make_reading(self, sequence: tuple[int, ...], layer: int, hidden: bool, layers: bool) -> Reading:
        return Reading(
            _at_each_end(sequence, partial(self.exit_logits, layer=layer)),
            _at_each_end(sequence, self.hidden) if hidden else None,
            _at_each_end(sequence, self.states) if layers else None,
        )

    def _ends(self, plans: Sequence[LayerPlan], count: int) -> list[int]:
        """After which layer each of so many sequences is answered: the more of the layers run, the later."""
        return [round(plan.share * self.layers) for plan in plans] or [self.layers] * count

    def mixed_logits(self, prefix: Sequence[int], mix: Mix, layer: int | None = None) -> np.ndarray:
        """The logits [V] after a prefix of which some places are mixed: the mean over all prefixes that it may stand for. layer:
        as in `exit_logits`; the last one if None."""
        layer = self.layers if layer is None else layer
        first = max(0, len(prefix) - self.order)
        places = [
            list(zip(*mix[place], strict=True)) if place in mix else [(prefix[place], 1.0)] for place in range(first, len(prefix))
        ]
        logits = np.zeros(self.vocabulary)
        for chosen in product(*places):
            weight = float(np.prod([share for _, share in chosen]))
            if weight > 0:
                logits += weight * self.exit_logits([int(token) for token, _ in chosen], layer)
        return logits


def _at_each_end(sequence: Sequence[int], function: Callable[[Sequence[int]], np.ndarray]) -> torch.Tensor:
    """What the function says of every prefix of a sequence, stacked."""
    return torch.from_numpy(np.stack([function(sequence[:end]) for end in range(1, len(sequence) + 1)]))


class TableHead:
    """A table's states are logits; its final norm divides them by their root mean square."""

    tied = False

    def __call__(self, states: torch.Tensor, norm: bool) -> torch.Tensor:
        return states / states.square().mean(-1, keepdim=True).sqrt() if norm else states


class AnyOrderTable:
    """A toy any-order law: a canvas of slots, token `mask` where a slot is open, a law for each open slot that depends on
    all slots that are filled."""

    def __init__(self, vocabulary: int, seed: int, sharpness: float = 1.5) -> None:
        self.vocabulary, self.seed, self.sharpness, self.mask = vocabulary, seed, sharpness, vocabulary
        self.capabilities = Capabilities(vocabulary=vocabulary, order="any", mask=vocabulary)

    def logits(self, canvas: np.ndarray) -> np.ndarray:
        """Logits for every slot of a canvas [T], [T, V] float64."""
        generator = np.random.default_rng([self.seed, *canvas.tolist()])
        return generator.normal(size=(len(canvas), self.vocabulary)) * self.sharpness

    def field(self, canvas: np.ndarray) -> np.ndarray:
        """Probabilities for every slot of a canvas [T], [T, V] float64."""
        return softmax(self.logits(canvas))

    def open(self, text: Text, opening: Opening, record: Recorder) -> AnyOrderTableSession:
        return AnyOrderTableSession(self, text, record)


class JointTable(AnyOrderTable):
    """An any-order law that is the truth: the conditionals of one joint law over `slots` slots after any prompt, an array of
    V ** slots probabilities. With it, what a sampler emits can be compared with what it should."""

    def __init__(self, vocabulary: int, slots: int, seed: int, sharpness: float = 1.5) -> None:
        super().__init__(vocabulary, seed, sharpness)
        joint = np.exp(np.random.default_rng(seed).normal(size=(vocabulary,) * slots) * sharpness)
        self.slots, self.joint = slots, joint / joint.sum()

    def logits(self, canvas: np.ndarray) -> np.ndarray:
        """Logits [T, V] of every slot given the filled ones; those of the prompt, and of filled slots, are all 0."""
        first = len(canvas) - self.slots
        open_slots = [slot for slot in range(self.slots) if canvas[first + slot] == self.mask]
        known = self.joint[tuple(slice(None) if token == self.mask else token for token in canvas[first:].tolist())]
        logits = np.zeros((len(canvas), self.vocabulary))
        for axis, slot in enumerate(open_slots):
            others = tuple(other for other in range(len(open_slots)) if other != axis)
            logits[first + slot] = np.log(known.sum(axis=others) / known.sum())
        return logits


class AnyOrderTableSession(CanvasSession):
    """One call a round for all canvases that are new."""

    def __init__(self, table: AnyOrderTable, text: Text, record: Recorder) -> None:
        super().__init__(text, record)
        self._table = table

    def score(self, forest: Forest, plans: Sequence[LayerPlan] = ()) -> Answers:
        self._begin(forest)
        computed = [self._extend(forest, row) for row in range(forest.rows)]
        if any(computed):
            self._record("score", forest.rows, max(computed), 0.0)
        return Answers(torch.zeros(forest.rows, forest.columns, 0), field=Field(self._canvases()))

    def _extend(self, forest: Forest, row: int) -> int:
        """Answers the columns of a row that are not live yet; how many of them had to be computed."""
        live, computed = self._live[row], 0
        for column in range(len(live), forest.columns):
            tokens = forest.canvas(self._text.of(row), row, column)
            known = None if column else self._kept_answer(row, tokens, 0, len(tokens))
            if known is None and forest.token[row, column] != ABSENT and forest.asked[column]:
                known = Answered(tokens, Canvas(0, torch.from_numpy(self._table.logits(tokens))), 0, len(tokens))
                computed += 1
            live.append(known)
        return computed
