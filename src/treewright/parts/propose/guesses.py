"""Guesses of what comes next, each with its chance, and the tree of the likeliest of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from treewright.core.claims import ABSENT, Shape
from treewright.parts.propose.chances import PRIOR
from treewright.parts.propose.guess_kernels import (
    FREE,
    ORDERS,
    Buffers,
    Counts,
    Script,
    extend,
    grade,
    grow_tree,
    part_shares,
    rehash_pairs,
)  # fmt: skip
from treewright.parts.propose.successors import Successors

FIRST = 256
"""Tokens that a text has room for at first."""


def _script(vocabulary: int, tokens: int) -> Script:
    pairs = np.full(2 * tokens, FREE, np.int64)
    return Script(vocabulary, np.zeros(tokens, np.int64), pairs, np.zeros(len(pairs), np.int64), np.array([0, -1, 0]))


def share_kinds(values: np.ndarray) -> np.ndarray:
    """The kinds of the shares that tokens have among those whose logits are values [..., k], as `chances` parts them."""
    kinds = np.empty(values.shape, np.uint8)
    part_shares(values.reshape(-1, values.shape[-1]), kinds.reshape(-1, values.shape[-1]))
    return kinds


class Writing:
    """A row's text so far, where each pair of tokens last stood in it, and how its chances have been."""

    def __init__(self, vocabulary: int, tokens: Sequence[int] | np.ndarray) -> None:
        self.script, self.counts = _script(vocabulary, FIRST), Counts.none()
        self.extend(tokens)

    @property
    def pointer(self) -> int:
        """The place in the text whose token a copy would guess next, -1 for none."""
        return int(self.script.at[1])

    @property
    def match(self) -> int:
        """Tokens that a copy would continue."""
        return int(self.script.at[2])

    @property
    def length(self) -> int:
        """Tokens of the text."""
        return int(self.script.at[0])

    @property
    def last(self) -> np.ndarray:
        """The last tokens, at most `ORDERS`."""
        length = self.script.at[0]
        return self.script.tokens[max(0, length - ORDERS) : length].copy()

    @property
    def tokens(self) -> np.ndarray:
        """The whole text."""
        return self.script.tokens[: self.script.at[0]]

    def extend(self, tokens: Sequence[int] | np.ndarray) -> None:
        """The text goes on with these tokens."""
        self.reserve(len(tokens))
        extend(self.script, self.counts, np.asarray(tokens, np.int64))

    def reserve(self, tokens: int) -> None:
        """Makes room for so many more tokens."""
        needed, room = int(self.script.at[0]) + tokens, len(self.script.tokens)
        if needed <= room:
            return
        while room < needed:
            room *= 2
        larger = _script(self.script.vocabulary, room)
        rehash_pairs(self.script, larger)
        self.script = larger


class Trees:
    """One tree of claims for each of R rows, of N columns: token, parent, depth, chance [R, N], visible [R, N, N] as in `Shape`;
    columns a row does not use are absent orphans of chance 0."""

    def __init__(self, rows: int, most: int) -> None:
        size = rows, most + 1
        self.token, self.parent = np.full(size, ABSENT, np.int64), np.full(size, ABSENT, np.int64)
        self.depth, self.chance = np.ones(size, np.int64), np.zeros(size)
        self.visible = np.zeros((*size, most + 1), bool)
        self.visible[:] = np.eye(most + 1, dtype=bool)
        self.depth[:, 0], self.chance[:, 0] = 0, 1.0
        self.columns = 1

    def row(self, row: int) -> Buffers:
        """Where the tree of one row is written."""
        return Buffers(self.token[row], self.parent[row], self.depth[row], self.visible[row], self.chance[row])

    @property
    def promised(self) -> float:
        """Tokens that the claims of all rows are thought to bring."""
        return float(self.chance[:, 1:].sum())

    @property
    def shape(self) -> Shape:
        """The topology of the columns that any row uses."""
        used = slice(self.columns)
        return Shape(self.parent[:, used], self.depth[:, used], self.visible[:, used, used])


class Guesser:
    """What all texts of a model have taught: the target's predictions by context, and how guesses have been."""

    def __init__(self, vocabulary: int) -> None:
        self.successors = Successors(vocabulary)
        self._counts = Counts.none()

    def trees(self, writings: Sequence[Writing], most: int, deepest: Sequence[int], worth: float) -> Trees:
        """For each text the `most` likeliest claims, no deeper than deepest[row], as far as their chance is at least `worth`."""
        trees, known = Trees(len(writings), most), self.successors.known
        for row, writing in enumerate(writings):
            out = trees.row(row)
            columns = grow_tree(known, writing.script, writing.counts, self._counts, PRIOR, most, deepest[row], worth, out)
            trees.columns = max(trees.columns, columns)
        return trees

    def observe(
        self, writing: Writing, written: Sequence[int],
        tokens: np.ndarray, parents: np.ndarray, ids: np.ndarray, shares: np.ndarray,
    ) -> None:  # fmt: skip
        """The text goes on with `written`: counts what would have been guessed at each token, and keeps what the target predicted
        at each of N claims behind the text as it was, as `Successors.learn` has them."""
        before = writing.last
        writing.reserve(len(written))
        known, new = self.successors.known, np.asarray(written, np.int64)
        grade(known, writing.script, writing.counts, self._counts, new)
        self.successors.learn(before, tokens, parents, ids, shares)
