"""Children drawn from a draft model's own law, chains of them, and trees of a form that is known beforehand."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from treewright.core.answers import Answers
from treewright.core.claims import ABSENT, Law
from treewright.core.randomness import DRAFT
from treewright.core.roles import Round
from treewright.ops.largest import tops
from treewright.ops.residual import without

Ask = Callable[[Round], Answers]
"""A draft model's answers to all claims of the round so far; one call of it."""


def ask_model(model: str) -> Ask:
    """Asks the session of this role."""
    return lambda round: round.sessions[model].score(round.forest)


Levels = tuple[tuple[int, ...], ...]
"""An ordered tree: for each level that has children, how many each claim of it has, in column order."""


def full_tree(widths: Sequence[int]) -> Levels:
    """The tree in which every claim of level d has widths[d] children."""
    levels, claims = [], 1
    for width in widths:
        levels.append((width,) * claims)
        claims *= width
    return tuple(levels)


def tree_size(levels: Levels) -> int:
    """Claims of the whole tree, frontier included."""
    return 1 + sum(map(sum, levels))


def draw_tree(round: Round, ask: Ask, levels: Levels, several: Law = Law.SWOR) -> None:
    """Draws a tree of this form, level by level while whole levels fit into the round; `several` as in `draw_children`. Costs one
    call of `ask` for each level."""
    parents = range(1)
    for counts in levels[: max(0, round.depth_left)]:
        if round.forest.columns + sum(counts) > round.claims:
            break
        parents = draw_children(round, ask(round), parents, counts, several)


class DraftTree:
    """Proposer: a tree of this form, drawn from whoever `ask` asks."""

    def __init__(self, ask: Ask, levels: Levels, several: Law = Law.SWOR) -> None:
        self._ask, self._levels, self._several = ask, levels, several

    def propose(self, round: Round) -> None:
        draw_tree(round, self._ask, self._levels, self._several)


def draw_children(
    round: Round, answers: Answers, parents: range, count: int | Sequence[int], several: Law = Law.SWOR
) -> range:  # fmt: skip
    """Adds `count` children (one number for all, or one for each) to each of the `parents` from a model's `answers` to the
    forest; returns their columns.

    Above temperature 0 children are drawn one after another from the model's warped law q, SINGLE for one child, and `several`
    as SWOR, each another token, or as IID, where a token may come again. At temperature 0 they are its most probable tokens
    (DELTA). Where the law has fewer tokens than are to differ the rest is absent, and so are all children of an absent parent.
    """
    rows = round.rows
    counts = [count] * len(parents) if isinstance(count, int) else list(count)
    widest = max(counts, default=0)
    above = [parent for parent, below in zip(parents, counts, strict=True) for _ in range(below)]
    present = round.forest.token != ABSENT
    if round.request.sampling.greedy:
        top = tops(answers, widest)[:, parents.start : parents.stop]
        token = top[:, [parent - parents.start for parent in above], [rank for below in counts for rank in range(below)]]
        return round.forest.grow(above, np.where(present[:, above], token, ABSENT))
    token = np.full((rows, len(above)), ABSENT)
    drawn_by: dict[int, np.ndarray] = {}
    first = 0
    for parent, below in zip(parents, counts, strict=True):
        if not below:
            continue
        law = round.draft_law(np.stack([answers.row(row, parent) for row in range(rows)]))
        drawn_by[parent] = law
        depth = int(round.forest.shape.depth[0, parent])
        for row in range(rows):
            if present[row, parent]:
                key = round.keys[row], round.position(row, depth), parent * widest
                token[row, first : first + below] = _drawn(round, law[row], below, several, *key)
        first += below
    kind = Law.SINGLE if widest == 1 else several
    return round.forest.grow(above, token, kind, drawn_by)


def _drawn(
    round: Round, law: np.ndarray, count: int, kind: Law, key: tuple[int, int], position: int, first_trial: int
) -> list[int]:
    drawn: list[int] = []
    while len(drawn) < count and law.any():
        drawn.append(round.randomness.index(law, key, position, DRAFT, first_trial + len(drawn)))
        law = law if kind is Law.IID else without(law, drawn[-1])
    return drawn + [ABSENT] * (count - len(drawn))


class DraftChain:
    """Proposer: draws one token after another, `tokens` at most, from whoever `ask` asks. After each the controller may say that
    a row has enough; the token it says so after is kept. Costs one call of `ask` for each token."""

    asks = True

    def __init__(self, ask: Ask, tokens: int) -> None:
        self._ask, self._tokens = ask, tokens

    def propose(self, round: Round) -> None:
        going, parents = np.ones(round.rows, bool), range(1)
        for _ in range(min(self._tokens, round.claims - 1, round.depth_left)):
            answers = self._ask(round)
            drawn = draw_children(round, answers, parents, count=1)
            column = drawn.start
            round.forest.token[~going, column] = ABSENT
            going &= round.forest.token[:, column] != ABSENT
            going &= round.more(answers, parents.start, column)
            if not going.any():
                return
            parents = drawn
