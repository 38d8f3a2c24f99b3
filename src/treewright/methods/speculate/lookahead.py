"""Lookahead decoding: Jacobi trajectories of the model itself leave n-grams behind, and those become guesses.

Fu et al. 2024, "Break the Sequential Dependency of LLM Inference Using Lookahead Decoding"
(https://arxiv.org/abs/2402.02057). A window of `level` - 1 rows and `window` columns moves along the text. Cell (l, c) is a
guess for the token l + c places after the frontier; it sees the text, row 0 up to its own column, and its own column below
it. The predictions at the last row become the next row, the oldest row drops out, and every column, read from the oldest
row to the prediction, is an n-gram. A pool keeps the last `guesses` n-grams of each first token. In the same call the
pooled n-grams that begin with the frontier are verified: a trie of deterministic guesses.

Cost: one target call a round, about (level - 1) (window + guesses) claims, no other model. Lossless. Window cells are
orphans with a `visible` of their own: scored, never accepted. They hold argmaxes at every temperature. The first
level - 2 rounds fill the rows. The window moves by one place a round, however many tokens were accepted, as in the paper.

Beside the paper: `pool_from_prompt`, an extra there, is on by default. Guesses are tried while the rows fill too; row 0 begins
with tokens of the text picked by a hash, so that runs repeat. A claim limit of the engine leaves out the oldest guesses first,
then window columns, then the last guess.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache

import numpy as np

from treewright.core.claims import ABSENT, Shape
from treewright.core.errors import require
from treewright.core.randomness import hash_key
from treewright.core.roles import Outcome, Parts, Round
from treewright.ops.largest import tops
from treewright.parts.verify.sample_then_match import SampleThenMatch

CARD = {
    "title": "Break the Sequential Dependency of LLM Inference Using Lookahead Decoding",
    "year": 2024,
    "link": "https://arxiv.org/abs/2402.02057",
    "card": None,
    "aliases": ["lookahead decoding", "LADE"],
    "roles": ["propose", "verify", "observe"],
    "models": [],
    "needs": ["left_to_right", "tree"],
    "claims": ["lossless"],
}

Key = tuple[int, int]


@dataclass(frozen=True)
class Config:
    """
    level: tokens of an n-gram, its first token included (N); the window has one row less
    window: columns of the window (W)
    guesses: n-grams kept for each first token, and verified in a round (G)
    pool_from_prompt: n-grams of the prompt enter the pool
    """

    level: int = 5
    window: int = 7
    guesses: int = 7
    pool_from_prompt: bool = True

    def __post_init__(self) -> None:
        require(self.level >= 2, "level", self.level, "an integer >= 2")
        require(self.window >= 1, "window", self.window, "an integer >= 1")
        require(self.guesses >= 0, "guesses", self.guesses, "an integer >= 0")


class Pool:
    """N-grams by their first token; the least recently seen is dropped when a token has more than `size`."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._grams: dict[int, dict[tuple[int, ...], None]] = {}

    def add(self, gram: Sequence[int]) -> None:
        """Takes an n-gram as the newest of its first token; one with an absent token is passed over."""
        first, *rest = gram
        if self._size < 1 or first == ABSENT or ABSENT in rest:
            return
        known = self._grams.setdefault(first, {})
        known.pop(tuple(rest), None)
        known[tuple(rest)] = None
        if len(known) > self._size:
            del known[next(iter(known))]

    def add_text(self, text: np.ndarray, level: int) -> None:
        """Takes every run of `level` tokens of text [T], the last as the newest."""
        for end in range(level, len(text) + 1):
            self.add(text[end - level : end].tolist())

    def guesses(self, first: int) -> list[tuple[int, ...]]:
        """What followed `first`, newest first."""
        return list(self._grams.get(first, ()))[::-1]


@dataclass(slots=True)
class Trail:
    """What a row of the batch remembers: the window [rows so far, columns] of tokens, and the pool."""

    window: np.ndarray
    pool: Pool


@dataclass(slots=True)
class Draft:
    """The claims of one row: the window's cells first (cell (0, 0) is the frontier), then the trie of guesses, as
    {(parent's column, token): column}."""

    window: np.ndarray
    trie: dict[tuple[int, int], int] = field(default_factory=dict)

    @property
    def cells(self) -> int:
        return max(1, self.window.size)

    @property
    def columns(self) -> int:
        return self.cells + len(self.trie)

    def insert(self, guess: Sequence[int], most: int) -> None:
        """Adds a guess to the trie, token by token, while the row has fewer than `most` columns."""
        above = 0
        for token in guess:
            if (above, token) not in self.trie:
                if self.columns >= most:
                    return
                self.trie[above, token] = self.columns
            above = self.trie[above, token]

    def tokens(self) -> list[int]:
        """The claimed token of every column but the frontier's, which is left ABSENT."""
        return [ABSENT, *self.window.ravel()[1:].tolist(), *(token for _, token in self.trie)]


@cache
def window_topology(rows: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
    """Depth [n] and visible [n, n] of a window's n = rows x columns cells, row by row; the frontier is cell 0."""
    row, column = np.divmod(np.arange(rows * columns), columns)
    behind = (row == 0) & (column <= column[:, None])
    below = (column == column[:, None]) & (row <= row[:, None])
    return row + column, behind | below


def shape_of(drafts: Sequence[Draft]) -> Shape:
    """The topology of every row's window and trie; columns that a row does not use are orphans that see the frontier."""
    columns = max(draft.columns for draft in drafts)
    parent = np.full((len(drafts), columns), ABSENT, np.int64)
    depth = np.ones((len(drafts), columns), np.int64)
    visible = np.repeat(np.eye(columns, dtype=bool)[None], len(drafts), axis=0)
    visible[:, :, 0], depth[:, 0] = True, 0
    for row, draft in enumerate(drafts):
        cells = draft.window.size
        if cells:
            depth[row, :cells], visible[row, :cells, :cells] = window_topology(*draft.window.shape)
        for (above, _), column in draft.trie.items():
            parent[row, column], depth[row, column] = above, depth[row, above] + 1
            visible[row, column] |= visible[row, above]
    return Shape(parent, depth, visible)


class Lookahead:
    """Proposer and observer around each row's window and pool."""

    prompt_top = 0

    def __init__(self, config: Config) -> None:
        self._config = config
        self._drafts: list[Draft] = []

    def trail(self, round: Round, row: int) -> Trail:
        """The memory of a row; a new row's window is empty."""
        return round.memories.row(round.keys[row], "lookahead", lambda: self._new_trail(round.text.of(row)))

    def _new_trail(self, text: np.ndarray) -> Trail:
        pool = Pool(self._config.guesses)
        if self._config.pool_from_prompt:
            pool.add_text(text, self._config.level)
        return Trail(np.zeros((1, 0), np.int64), pool)

    def propose(self, round: Round) -> None:
        self._drafts = []
        if round.depth_left < 1 or round.claims < 2:
            return
        self._drafts = [self._draft(round, row) for row in range(round.rows)]
        shape = shape_of(self._drafts)
        token = np.full((round.rows, shape.columns), ABSENT)
        for row, draft in enumerate(self._drafts):
            token[row, : draft.columns] = draft.tokens()
        token[:, :1] = round.forest.token
        round.forest.replace(shape, token)

    def _draft(self, round: Round, row: int) -> Draft:
        trail, text, level = self.trail(round, row), round.text.of(row), self._config.level
        rows = len(trail.window)
        reserved = level - 1 if self._config.guesses else 0
        columns = min(self._config.window + level - 1 - rows, max(0, round.claims - reserved) // rows)
        draft = Draft(self._fitted(trail.window, columns, round.keys[row], text))
        for guess in trail.pool.guesses(int(text[-1])):
            draft.insert(guess, round.claims)
        return draft

    @staticmethod
    def _fitted(window: np.ndarray, columns: int, key: Key, text: np.ndarray) -> np.ndarray:
        """The window cut to `columns`, or widened with tokens of the text."""
        rows, present = window.shape
        if columns <= present:
            return window[:, :columns]
        places = [hash_key((*key, len(text), cell)) % len(text) for cell in range(rows * (columns - present))]
        return np.concatenate([window, text[places].reshape(rows, -1)], axis=1)

    def read_prompts(self, round: Round, prompts: Sequence[Sequence[int]], top: np.ndarray) -> None:
        """Predictions at prompt positions are not asked for; the prompt itself enters the pool when a row is first seen."""

    def observe(self, outcome: Outcome) -> None:
        round, level = outcome.round, self._config.level
        # In a round that somebody else drafted the window waits: its place in the text is only roughly kept anyway.
        own = bool(self._drafts) and round.proposed_by is self
        predicted = tops(round.answers["target"], 1)[..., 0] if own else None
        for row in range(round.rows):
            trail = self.trail(round, row)
            if predicted is not None and self._drafts[row].window.size:
                # Claims too deep to become text were made absent after they were proposed; so are their predictions.
                rows, columns = self._drafts[row].window.shape
                window = round.forest.token[row, : rows * columns].reshape(rows, columns)
                above = predicted[row, (rows - 1) * columns : rows * columns]
                trail.window = self._advance(trail.pool, window, np.where(window[-1] == ABSENT, ABSENT, above))
            fresh = len(outcome.emitted[row]) + level - 1
            trail.pool.add_text(round.text.of(row)[-fresh:], level)

    def _advance(self, pool: Pool, window: np.ndarray, above: np.ndarray) -> np.ndarray:
        """The window one place on: still filling, it gives up its first column for a row; full, its oldest row."""
        grown = np.concatenate([window, above[None]])
        if len(grown) < self._config.level:
            return grown[:, 1:]
        for column in range(grown.shape[1]):
            pool.add(grown[:, column].tolist())
        return grown[1:]


def parts(config: Config) -> Parts:
    lookahead = Lookahead(config)
    # The window grows a row each time it gives up a column; their product is largest half way, if it comes that far.
    rows = min(config.level - 1, (config.window + config.level - 1) // 2)
    claims = rows * (config.window + config.level - 1 - rows) + config.guesses * (config.level - 1)
    return Parts(propose=lookahead, verify=SampleThenMatch(), observe=(lookahead,), claims=claims)
