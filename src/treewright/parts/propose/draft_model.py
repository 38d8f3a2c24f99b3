"""Children drawn from a draft model's own law."""

from __future__ import annotations

import numpy as np

from treewright.core.claims import ABSENT, Law
from treewright.core.randomness import DRAFT
from treewright.core.roles import Round
from treewright.ops.residual import without


def draw_children(round: Round, model: str, parents: range, count: int) -> range:
    """Scores the forest on `model` and adds `count` different children to each of the `parents`; returns their columns.

    Above temperature 0 children are drawn one after another without replacement from the model's warped law q (SWOR, or
    SINGLE for one child); at temperature 0 they are its `count` most probable tokens (DELTA). Where the law has fewer than
    `count` tokens the rest is absent. Costs one call of `model`.
    """
    answers = round.sessions[model].score(round.forest)
    rows = round.rows
    above = [parent for parent in parents for _ in range(count)]
    present = round.forest.token != ABSENT
    if round.request.sampling.greedy:
        token = answers.top(count)[:, parents.start : parents.stop].reshape(rows, -1)
        return round.forest.grow(above, np.where(present[:, above], token, ABSENT))
    token = np.full((rows, len(above)), ABSENT)
    drawn_by: dict[int, np.ndarray] = {}
    for index, parent in enumerate(parents):
        law = round.draft_law(np.stack([answers.row(row, parent) for row in range(rows)]))
        drawn_by[parent] = law
        depth = int(round.forest.shape.depth[0, parent])
        for row in range(rows):
            if present[row, parent]:
                key = round.keys[row], round.position(row, depth), parent * count
                token[row, index * count : (index + 1) * count] = _without_replacement(round, law[row], count, *key)
    kind = Law.SINGLE if count == 1 else Law.SWOR
    return round.forest.grow(above, token, kind, drawn_by)


def _without_replacement(
    round: Round, law: np.ndarray, count: int, key: tuple[int, int], position: int, first_trial: int
) -> list[int]:
    drawn: list[int] = []
    while len(drawn) < count and law.any():
        drawn.append(round.randomness.index(law, key, position, DRAFT, first_trial + len(drawn)))
        law = without(law, drawn[-1])
    return drawn + [ABSENT] * (count - len(drawn))
