"""Claims: "if this token stood here, after that path, what would the model predict?"

A claim is a column of a `Forest`. Column 0 is the frontier: the last token of the text, a fact and not a guess.
All sessions of a run share the forest, so a claim has one number whichever model answers it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import IntEnum
from typing import Any, Protocol

import numpy as np

ABSENT = -1


class Law(IntEnum):
    """How the children of a claim were drawn; the verifier must use the ratio of the true law.

    DELTA: a deterministic function of the past, or of randomness the verifier never sees.
    SINGLE: one draw from q. SWOR: draws without replacement from q, in column order. IID: draws with replacement.
    """

    DELTA = 0
    SINGLE = 1
    SWOR = 2
    IID = 3


class DraftLaws(Protocol):
    """The laws that the children of one claim were drawn by: [row] gives one row's probabilities [V], [rows] the laws after row
    i became a copy of row rows[i]. An array [R, V] is one; where many claims have few children, a sparse form is cheaper."""

    def __getitem__(self, rows: Any, /) -> Any: ...


class Shape:
    """The topology of N claims, immutable: shared by all rows (B = 1) or one for each row (B = R).

    parent [B, N] int: column of the parent; -1 at the frontier and at orphans (scored, but never reached by a walk).
    depth [B, N] int: distance from the frontier; position = frontier position + depth.
    visible [B, N, N] bool: visible[b, i, j] says that claim i attends to claim j; ancestors and self by default.
    """

    __slots__ = ("_children", "_grown", "depth", "parent", "visible")

    def __init__(self, parent: np.ndarray, depth: np.ndarray, visible: np.ndarray) -> None:
        self.parent, self.depth, self.visible = parent, depth, visible
        self._grown: dict[tuple[int, ...], Shape] = {}
        self._children: list[list[list[int]] | None] = [None] * len(parent)

    @staticmethod
    def frontier() -> Shape:
        """The shape that holds the frontier alone; one shared object, so that grown shapes are shared too."""
        return _FRONTIER

    @staticmethod
    def of(parent: np.ndarray) -> Shape:
        """The topology of `parent` [B, N] built at once: parents stand before their children, column 0 is the frontier,
        and -1 elsewhere marks an orphan. Cost: log2(depth) products of boolean matrices."""
        batch, columns = parent.shape
        if (parent >= np.arange(columns)).any():
            raise ValueError("a parent must come before its child")
        # visible = (I + P)^(2^k): each squaring doubles the distance over which a claim sees its ancestors.
        visible = np.zeros((batch, columns, columns), np.float32)
        row, column = np.nonzero(parent >= 0)
        visible[row, column, parent[row, column]] = 1
        visible[:, np.arange(columns), np.arange(columns)] = 1
        reached = 0
        while (total := int(np.count_nonzero(visible))) != reached:
            reached = total
            visible = np.minimum(visible @ visible, 1)
        seen = visible > 0
        # Orphans stand at depth 1, as if below the frontier that they do not see.
        return Shape(parent, seen.sum(-1) - seen[:, :, 0], seen)

    @property
    def columns(self) -> int:
        return self.parent.shape[1]

    @property
    def shared(self) -> bool:
        """True where all rows have one topology."""
        return len(self.parent) == 1

    def grow(self, parents: Sequence[int]) -> Shape:
        """This shape with one more claim for each entry of `parents`, the same for every row.

        Cached: growing the same way twice gives the same object, which is what lets masks be reused.
        """
        key = tuple(parents)
        if key not in self._grown:
            grown = np.broadcast_to(np.asarray(key, np.int64), (len(self.parent), len(key)))
            self._grown[key] = self.grow_rows(grown)
        return self._grown[key]

    def grow_rows(self, parents: np.ndarray) -> Shape:
        """Like `grow`, with other parents for each row: parents [R, k], -1 for an orphan that sees only itself."""
        rows, added = parents.shape
        columns = self.columns
        parent = np.empty((rows, columns + added), np.int64)
        depth = np.empty_like(parent)
        visible = np.zeros((rows, columns + added, columns + added), bool)
        parent[:, :columns], depth[:, :columns] = self.parent, self.depth
        visible[:, :columns, :columns] = self.visible
        index = np.arange(rows)
        for offset in range(added):
            column, above = columns + offset, parents[:, offset]
            if (above >= column).any():
                raise ValueError(f"claim {column} names parent {int(above.max())}; a parent must come before its child")
            orphan = above < 0
            parent[:, column] = above
            depth[:, column] = np.where(orphan, 1, depth[index, above] + 1)
            visible[:, column] = visible[index, above] & ~orphan[:, None]
            visible[:, column, column] = True
        return Shape(parent, depth, visible)

    def children(self, row: int) -> list[list[int]]:
        """For each column of `row`, its children in column order (which is the order they were drawn in)."""
        row = 0 if self.shared else row
        known = self._children[row]
        if known is None:
            known = [[] for _ in range(self.columns)]
            for column, above in enumerate(self.parent[row].tolist()):
                if above >= 0:
                    known[above].append(column)
            self._children[row] = known
        return known

    def select(self, rows: Sequence[int]) -> Shape:
        """The topology after row i became a copy of row rows[i]."""
        if self.shared:
            return self
        index = np.asarray(rows, np.int64)
        return Shape(self.parent[index], self.depth[index], self.visible[index])

    def path(self, row: int, column: int) -> list[int]:
        """Columns from the frontier (left out) down to `column`."""
        parent = self.parent[0 if self.shared else row]
        path = []
        while column > 0:
            path.append(column)
            column = int(parent[column])
        return path[::-1]


_FRONTIER = Shape(np.full((1, 1), -1), np.zeros((1, 1), np.int64), np.ones((1, 1, 1), bool))


class Forest:
    """The claims of one round for R rows.

    token [R, N] int64: the claimed token, ABSENT (-1) where a row does not use the column.
    shape: the topology. law [N]: `Law` of each claim. q {parent column: [R, V]}: the law its children were drawn by,
    for every parent whose children are not DELTA. mix {column: (tokens [R, m], weights [R, m])}: a claim that is no token but the
    weighted mean of several tokens' embeddings, for models that have `embeddings`; its `token` stands for it where one is shown.

    Any-order models only: slot [R, N] or None: the slot a claim fills. asked [N]: whether the claim's own answer is wanted; a
    session need not compute the others. window [R, 2] or None: slots [first, end) that must be computed anew; a session
    that was opened with `reuse` takes the keys and values of all other slots from the row's last whole forward, which is
    an approximation. None, and a window of the whole canvas, is a whole forward.
    """

    __slots__ = ("asked", "law", "mix", "q", "shape", "slot", "token", "window")

    def __init__(self, frontier: np.ndarray) -> None:
        self.token = frontier.reshape(-1, 1)
        self.shape = Shape.frontier()
        self.law: list[Law] = [Law.DELTA]
        self.q: dict[int, DraftLaws] = {}
        self.mix: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        self.slot: np.ndarray | None = None
        self.asked = [True]
        self.window: np.ndarray | None = None

    @property
    def rows(self) -> int:
        return self.token.shape[0]

    @property
    def columns(self) -> int:
        return self.token.shape[1]

    def grow(
        self,
        parents: Sequence[int] | np.ndarray,
        tokens: np.ndarray,
        law: Law = Law.DELTA,
        q: Mapping[int, DraftLaws] | None = None,
        slots: np.ndarray | None = None,
        asked: Sequence[bool] | None = None,
    ) -> range:
        """Adds claims: tokens [R, k] under `parents` (k numbers for all rows, or an array [R, k]).

        Returns the new columns. `q` maps a parent column to the [R, V] law its children were drawn by.
        """
        first = self.columns
        if law is not Law.DELTA and not q:
            raise ValueError(f"claims of law {law.name} need q, the distribution they were drawn from")
        if isinstance(parents, np.ndarray) and parents.ndim == 2:
            self.shape = self.shape.grow_rows(parents)
        else:
            self.shape = self.shape.grow([int(parent) for parent in parents])
        self.token = np.concatenate([self.token, tokens.astype(np.int64, copy=False)], axis=1)
        self.law = self.law + [law] * tokens.shape[1]
        self.q.update(q or {})
        self.asked = self.asked + (list(asked) if asked is not None else [True] * tokens.shape[1])
        if slots is not None:
            before = np.full((self.rows, first), ABSENT) if self.slot is None else self.slot
            self.slot = np.concatenate([before, slots], axis=1)
        return range(first, self.columns)

    def replace(
        self, shape: Shape, token: np.ndarray, law: Law = Law.DELTA, q: Mapping[int, DraftLaws] | None = None
    ) -> None:  # fmt: skip
        """Sets a whole prepared topology at once; token [R, N] with the frontier in column 0, `law` and `q` as in `grow`."""
        self.shape, self.token = shape, token
        self.law = [Law.DELTA] + [law] * (token.shape[1] - 1)
        self.q = dict(q or {})
        self.asked = [True] * token.shape[1]

    def limit_depth(self, deepest: np.ndarray) -> None:
        """Makes claims deeper than deepest [R] absent: they could never become text, or have no position."""
        too_deep = self.shape.depth > deepest[:, None]
        if too_deep.any():
            self.token = np.where(too_deep, ABSENT, self.token)

    def select(self, rows: Sequence[int]) -> None:
        """Row i becomes a copy of row rows[i]."""
        index = np.asarray(rows, np.int64)
        self.token, self.shape = self.token[index], self.shape.select(rows)
        self.q = {parent: law[index] for parent, law in self.q.items()}
        self.mix = {column: (tokens[index], weights[index]) for column, (tokens, weights) in self.mix.items()}
        self.slot = None if self.slot is None else self.slot[index]
        self.window = None if self.window is None else self.window[index]

    def canvas(self, facts: np.ndarray, row: int, column: int) -> np.ndarray:
        """A copy of an any-order row's facts [T] with the slots of a claim and of its ancestors filled."""
        canvas = facts.copy()
        for step in self.shape.path(row, column):
            if self.slot is not None and self.token[row, step] >= 0:
                canvas[self.slot[row, step]] = self.token[row, step]
        return canvas

    def path_tokens(self, row: int, column: int) -> list[int]:
        """Claimed tokens from just after the frontier down to `column`."""
        return [int(self.token[row, step]) for step in self.shape.path(row, column)]
