"""How often a guess of each kind is the token that comes: counted on the text as it is written."""

from __future__ import annotations

import numpy as np

from treewright.parts.propose.successors import ORDERS

RANKS = 8
LENGTHS = (2, 3, 4, 6, 10)
"""Least lengths of the match that a copied token continues, by kind."""
KINDS = (len(LENGTHS) + 1) * (ORDERS + 1) * RANKS

TRUST = 12.0
"""Guesses of a kind that the prior is worth: all rows' counts for a row, the table below for all rows."""
LASTING = 0.985
"""What a fading count keeps from token to token: a text changes."""

COPIED = (0.0, 0.3, 0.45, 0.6, 0.75, 0.9)
PREDICTED = (0.38, 0.48, 0.55)
RANKED = (1.0, 0.27, 0.13, 0.08, 0.06, 0.045, 0.035, 0.03)


COPIES = tuple((ORDERS + 1) * RANKS * sum(match >= least for least in LENGTHS) for match in range(LENGTHS[-1] + 1))
"""What a copy adds to the kind that a guess has as a prediction, by the tokens of its match, the longest last."""


def kind_of(match: int, order: int, rank: int) -> int:
    """The kind of a guess. match: tokens of text that it continues, 0 where it is not copied; order: how many tokens, less
    one, the target's prediction went by, `ORDERS` where it is not predicted; rank: its place among the predictions."""
    return COPIES[min(match, LENGTHS[-1])] + order * RANKS + min(rank, RANKS - 1)


def _prior() -> np.ndarray:
    table = np.empty(KINDS)
    for match, by_copy in zip((0, *LENGTHS), COPIED, strict=True):
        for order in range(ORDERS + 1):
            for rank, share in enumerate(RANKED):
                predicted = PREDICTED[order] * share if order < ORDERS else 0.0
                table[kind_of(match, order, rank)] = 1 - (1 - by_copy) * (1 - predicted)
    return table


class Chances:
    """Counts of guesses by kind, in which what was counted longer ago weighs less if `fades`."""

    def __init__(self, fades: bool) -> None:
        self._hits = [0.0] * KINDS
        self._tries = [0.0] * KINDS
        self._fades, self._now = fades, 1.0

    def of(self, kind: int, prior: float) -> float:
        """The chance that a guess of this kind comes where its place is reached; `prior` where nothing was counted."""
        trust = TRUST * self._now
        return (self._hits[kind] + trust * prior) / (self._tries[kind] + trust)

    def count(self, kind: int, hit: bool) -> None:
        """A guess of this kind was made where the text went on."""
        self._tries[kind] += self._now
        self._hits[kind] += self._now if hit else 0.0

    def pass_on(self) -> None:
        """A token was written. The present grows instead of the past fading, so that a step costs nothing."""
        if not self._fades:
            return
        self._now /= LASTING
        if self._now > 1e9:
            self._hits = [hits / self._now for hits in self._hits]
            self._tries = [tries / self._now for tries in self._tries]
            self._now = 1.0


PRIOR: list[float] = _prior().tolist()
"""What is thought of each kind before anything is counted."""
