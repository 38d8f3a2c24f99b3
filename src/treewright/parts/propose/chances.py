"""How often a guess of each kind is the token that comes, before anything is counted."""

from __future__ import annotations

import numpy as np

from treewright.parts.propose.guess_kernels import COPIES, KINDS, LENGTHS, ORDERS, SHARES

COPIED = (0.0, 0.3, 0.45, 0.6, 0.75, 0.9)
RELIED = (0.5, 0.7, 0.85)
"""How much of a share is believed, by order; of copies, by the length of their match."""
MIDDLES = (0.003, 0.01, 0.027, 0.06, 0.12, 0.23, 0.38, 0.52, 0.68, 0.81, 0.91, 0.97, 0.99)
BY_RANK = (8, 5, 4, 3, 2, 2, 1, 1)
"""The kinds of share that predictions have whose shares were not told, by their rank."""


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
"""What is thought of each kind, [KINDS]."""
