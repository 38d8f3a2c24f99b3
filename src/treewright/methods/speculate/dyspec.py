"""DySpec: a draw is made wherever it is most likely to be looked at, so the tree takes the form that the draft's doubts give it.

Xiong et al. 2024, "DySpec: Faster Speculative Decoding with Dynamic Token Tree Structure"
(https://arxiv.org/abs/2410.11744). A slot is a draw that is still to be made; its value estimates how often verification comes
to it, taking the draft's probability of a token for that of its acceptance. A draw y of probability r among what is left
turns a slot of value v into one below y (v r) and one for the next sibling (v (1 - r)). With `threshold` 0 the slot of the
largest value is drawn until there are `budget` nodes (the paper's first algorithm). With a threshold every slot worth at
least as much is drawn, level by level (the second), and `budget` is a cap. Values are known before tokens are, so exact
rejection for draws without replacement keeps the law. At temperature 0 the most probable token that is left takes the place
of a draw, and the draft's own law gives r.

Cost: one target call a round. By threshold one draft call for each level. By budget one whenever the best slot of some row has
no answer yet; all that was drawn since is asked in it, so calls are fewer than the nodes that the paper asks one by one.

Beside the paper: drafts are drawn at the request's temperature, not at one of their own (0.6). Its second algorithm is printed
with `while v < t`, which must be `>=`. Values are fit for sample-then-match: if target and draft agree, the sum of all
slots' values is the expected number of draws that are tried, and the sum of v r that of accepted ones (tested). Exact
rejection accepts more; it would then take every first child.
"""

from __future__ import annotations

from dataclasses import dataclass

from treewright.core.errors import require
from treewright.core.roles import Parts, Round
from treewright.parts.propose.growth import BestFirst, ask_level
from treewright.parts.propose.sketchpad import Sketchpad
from treewright.parts.verify.rejection import Rejection

CARD = {
    "title": "DySpec: Faster Speculative Decoding with Dynamic Token Tree Structure",
    "year": 2024,
    "link": "https://arxiv.org/abs/2410.11744",
    "card": 13,
    "aliases": ["dynamic token tree"],
    "roles": ["propose", "verify"],
    "models": ["draft"],
    "needs": ["left_to_right", "tree"],
    "claims": ["lossless"],
    "tables": {"budget": 2},
}


@dataclass(frozen=True)
class Config:
    """
    budget: the most claims a round, the frontier not counted
    threshold: draw all slots worth at least this (about 1 / budget); 0 draws the best ones until the budget is used
    """

    budget: int = 64
    threshold: float = 0.0

    def __post_init__(self) -> None:
        require(self.budget >= 1, "budget", self.budget, "an integer >= 1")
        require(0 <= self.threshold <= 1, "threshold", self.threshold, "a number from 0 to 1")


class DynamicTokenTree:
    def __init__(self, config: Config) -> None:
        self._config = config

    def propose(self, round: Round) -> None:
        budget = min(self._config.budget, round.claims - 1)
        if budget < 1 or round.depth_left < 1:
            return
        pad = Sketchpad(round, "draft", pad_size(self._config))
        if self._config.threshold > 0:
            draw_levels(pad, budget, self._config.threshold)
        else:
            BestFirst(pad, budget).grow()
        pad.place()


def draw_levels(pad: Sketchpad, budget: int, threshold: float) -> None:
    """Draws every slot of a level that is worth `threshold`, while a row has fewer than `budget` nodes; one call for each
    level."""
    level = [[(0, 1.0)] if pad.may_grow(row, 0) else [] for row in range(len(pad.rows))]
    while any(level):
        ask_level(pad, [[node for node, _ in slots] for slots in level])
        below: list[list[tuple[int, float]]] = [[] for _ in level]
        for row, slots in enumerate(level):
            for node, worth in slots:
                value = worth
                while value >= threshold and len(pad.rows[row].drawn) < budget and (drawn := pad.draw(row, node)):
                    child, share = drawn
                    if value * share >= threshold and pad.may_grow(row, child):
                        below[row].append((child, value * share))
                    value *= 1 - share
        full = [len(sketch.drawn) >= budget for sketch in pad.rows]
        room = [pad.room(row) for row in range(len(pad.rows))]
        level = [[] if full[row] else slots[: room[row]] for row, slots in enumerate(below)]


def pad_size(config: Config) -> int:
    """Columns for a row's whole tree, and as many again, since rows whose trees differ leave each other gaps."""
    return 1 + 2 * config.budget


def parts(config: Config) -> Parts:
    return Parts(
        propose=DynamicTokenTree(config), verify=Rejection(), probabilities=True, claims=config.budget + 1,
        drafts=pad_size(config),
    )  # fmt: skip
