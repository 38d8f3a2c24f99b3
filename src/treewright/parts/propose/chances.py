"""How often a guess of each kind is the token that comes: counted on the text as it is written."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

ORDERS = 3
"""Longest context that predictions are kept for, in tokens."""
LENGTHS = (2, 3, 4, 6, 10)
"""Least lengths of the match that a copied token continues, by kind."""
EDGES = (0.005, 0.015, 0.04, 0.08, 0.16, 0.3, 0.45, 0.6, 0.75, 0.87, 0.95, 0.985)
"""Where the kinds of predictions part, by the share that the target gave the token among those it is kept with."""
SHARES = len(EDGES) + 1
KINDS = (len(LENGTHS) + 1) * (ORDERS + 1) * SHARES

TRUST = 12.0
"""Guesses of a kind that the prior is worth: all rows' counts for a row, the table below for all rows."""
LASTING = 0.985
"""What a fading count keeps from token to token: a text changes."""

COPIED = (0.0, 0.3, 0.45, 0.6, 0.75, 0.9)
RELIED = (0.5, 0.7, 0.85)
"""How much of a share is believed, by order; of copies, by the length of their match."""
MIDDLES = (0.003, 0.01, 0.027, 0.06, 0.12, 0.23, 0.38, 0.52, 0.68, 0.81, 0.91, 0.97, 0.99)
BY_RANK = (8, 5, 4, 3, 2, 2, 1, 1)
"""The kinds of share that predictions have whose shares were not told, by their rank."""

COPIES = np.array([(ORDERS + 1) * SHARES * sum(match >= least for least in LENGTHS) for match in range(LENGTHS[-1] + 1)])
"""What a copy adds to the kind that a guess has as a prediction, by the tokens of its match, the longest last."""


def kind_of(match: int, order: int, share: int) -> int:
    """The kind of a guess. match: tokens of text that it continues, 0 where it is not copied; order: how many tokens, less
    one, the target's prediction went by, `ORDERS` (and share 0) where it is not predicted; share: the kind of its share."""
    return int(COPIES[min(match, LENGTHS[-1])]) + order * SHARES + share


def _prior() -> np.ndarray:
    table = np.empty(KINDS)
    for match, by_copy in zip((0, *LENGTHS), COPIED, strict=True):
        for order in range(ORDERS + 1):
            for share, middle in enumerate(MIDDLES):
                predicted = RELIED[order] * middle if order < ORDERS else 0.0
                table[kind_of(match, order, share)] = 1 - (1 - by_copy) * (1 - predicted)
    return table


PRIOR = _prior()
"""What is thought of each kind before anything is counted, [KINDS]."""


class Counts(NamedTuple):
    """Guesses by kind and how many were right, [KINDS] each. now [1]: what a guess of this moment weighs: where counts fade, the
    present grows instead of the past fading, so that a token costs nothing."""

    hits: np.ndarray
    tries: np.ndarray
    now: np.ndarray

    @staticmethod
    def none() -> Counts:
        """Before anything was counted."""
        return Counts(np.zeros(KINDS), np.zeros(KINDS), np.ones(1))
