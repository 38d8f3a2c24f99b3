"""Laws that put their mass on a few tokens: the largest chances of a model's answer, and draws from them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from treewright.core.randomness import DRAFT
from treewright.core.roles import Round
from treewright.ops.softmax import softmax


def largest_chances(logits: np.ndarray, count: int) -> tuple[list[int], list[float]]:
    """The `count` most probable tokens of softmax(logits [V]), the likeliest first, then by token, and their probabilities."""
    return largest(softmax(logits), count)


def largest(law: np.ndarray, count: int) -> tuple[list[int], list[float]]:
    """The `count` largest entries of a law [V] that are above 0, the largest first, then by token, and their tokens."""
    few = np.argpartition(-law, count)[:count] if count < len(law) else np.arange(len(law))
    order = few[np.lexsort((few, -law[few]))]
    order = order[law[order] > 0]
    return order.tolist(), law[order].tolist()


def draw_different(round: Round, row: int, depth: int, chances: Sequence[float], count: int, first_trial: int) -> list[int]:
    """Places in `chances` (> 0, any sum), at most `count`, drawn one after another without replacement by the drafters' noise of
    the position at `depth`; the order is that of Gumbel-top-k, the law is the same. Calls that may be asked about one position
    give trials that do not overlap."""
    left, drawn = np.array(chances, np.float64), list[int]()
    key, position = round.keys[row], round.position(row, depth)
    for trial in range(first_trial, first_trial + min(count, len(chances))):
        drawn.append(round.randomness.index(left, key, position, DRAFT, trial))
        left[drawn[-1]] = 0.0
    return drawn
