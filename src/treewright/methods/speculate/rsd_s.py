"""Recursive speculative decoding, stochastic beams: the draft model proposes `width` sequences drawn without replacement.

Jeon et al. 2024, "Recursive Speculative Decoding: Accelerating LLM Inference via Sampling Without Replacement"
(https://arxiv.org/abs/2402.14160), the variant RSD-S. A stochastic beam search over the draft model keeps `width` beginnings at
each of `depth` levels; all of them are claims. Siblings stand in the order they were drawn in and are verified as draws
without replacement. A sibling may be missing because the beam was full, which depends on earlier draws and never on its
own token, so the law is kept; cutting nodes out of the finished tree would break it.

Cost: one target call and `depth` draft calls a round, of `width` claims each. Lossless. At temperature 0 the beams are the most
probable beginnings.

Beside the paper: no Gumbel noise. The paper perturbs the log-probability of every child and conditions the largest on its
parent's, log-probabilities in, keys out. Read as a race (a beginning of probability p arrives after an exponential time of rate
p, its key is minus the logarithm), all that matters is who arrives next at a level: a further child of a beginning that has
arrived, in proportion to what is left of its probability, or the next beginning of the level above, in proportion to all
that has not arrived; which one that is, is known from the level above and independent of when. So each place of a
level is one draw of the parent and one of the child. The law of the tree, its order included, is that of the paper (tested
against its formula and against enumeration); there is nothing to cancel, and outcomes can be enumerated.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from treewright.core.errors import require
from treewright.core.randomness import SEARCH
from treewright.core.roles import Parts, Round
from treewright.parts.propose.growth import ask_level, best_children
from treewright.parts.propose.sketchpad import Sketchpad
from treewright.parts.verify.rejection import Rejection

CARD = {
    "title": "Recursive Speculative Decoding: Accelerating LLM Inference via Sampling Without Replacement",
    "year": 2024,
    "link": "https://arxiv.org/abs/2402.14160",
    "card": 3,
    "aliases": ["RSD", "RSD-S", "recursive speculative decoding"],
    "roles": ["propose", "verify"],
    "models": ["draft"],
    "needs": ["left_to_right", "tree"],
    "claims": ["lossless"],
    "tables": {"width": 2, "depth": 1},
}


@dataclass(frozen=True)
class Config:
    """
    width: sequences, and so claims of each level
    depth: levels
    """

    width: int = 4
    depth: int = 4

    def __post_init__(self) -> None:
        require(self.width >= 1, "width", self.width, "an integer >= 1")
        require(self.depth >= 1, "depth", self.depth, "an integer >= 1")


@dataclass(slots=True)
class Beginning:
    """A node of the beam and its path's probability under the draft law."""

    node: int
    probability: float


class StochasticBeams:
    """Proposer. Levels that do not fit into the round are left out; where not even one fits, it is narrower."""

    def __init__(self, config: Config) -> None:
        self._config = config

    def propose(self, round: Round) -> None:
        width = min(self._config.width, round.claims - 1)
        if width < 1:
            return
        depth = min(self._config.depth, (round.claims - 1) // width, round.depth_left)
        pad = Sketchpad(round, "draft", 1 + width * depth)
        if round.request.sampling.greedy:
            self._best(pad, width, depth)
            return
        beams = [[Beginning(0, 1.0)] for _ in pad.rows]
        for _ in range(depth):
            beams = [[b for b in beam if pad.may_grow(row, b.node)] for row, beam in enumerate(beams)]
            if not any(beams):
                break
            ask_level(pad, [[beginning.node for beginning in beam] for beam in beams])
            beams = [arrivals(pad, row, beam, width) for row, beam in enumerate(beams)]
        pad.place()

    @staticmethod
    def _best(pad: Sketchpad, width: int, depth: int) -> None:
        level: list[list[int]] = [[0] for _ in pad.rows]
        claims: list[list[int]] = [[] for _ in pad.rows]
        for _ in range(depth):
            ask_level(pad, level)
            level = best_children(pad, level, width, width)
            claims = [known + new for known, new in zip(claims, level, strict=True)]
        pad.place(claims)


def arrivals(pad: Sketchpad, row: int, beam: list[Beginning], width: int) -> list[Beginning]:
    """The first `width` children that arrive, in order; `beam` holds the level above in its own order of arrival."""
    round, found = pad.round, list[Beginning]()
    if not beam:
        return found
    position = round.position(row, pad.rows[row].depths[beam[0].node])
    left: list[float] = []  # of each beginning that has arrived: the probability that has not arrived below it
    away = 1.0  # of all that have not arrived
    for trial in range(2 * width):
        weights = np.array([*left, away if len(left) < len(beam) else 0.0])
        if len(found) == width or not weights.any():
            break
        parent = round.randomness.index(weights, round.keys[row], position, SEARCH, trial)
        if parent == len(left):
            left.append(beam[parent].probability)
            away = max(0.0, away - beam[parent].probability)
        drawn = pad.draw(row, beam[parent].node)
        if drawn is None:
            left[parent] = 0.0
            continue
        child, share = drawn
        found.append(Beginning(child, left[parent] * share))
        left[parent] *= 1 - share
    return found


def parts(config: Config) -> Parts:
    claims = 1 + config.width * config.depth
    return Parts(propose=StochasticBeams(config), verify=Rejection(), probabilities=True, claims=claims, drafts=claims)
