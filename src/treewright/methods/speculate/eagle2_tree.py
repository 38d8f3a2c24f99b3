"""EAGLE-2's dynamic tree on any draft model: beams by the probability of their path, then the best claims of all levels.

Li et al. 2024, "EAGLE-2: Faster Inference of Language Models with Dynamic Draft Trees" (https://arxiv.org/abs/2406.16858). The
draft model is asked about the `top_k` best nodes of a level, each offers its `top_k` most probable children, and the best
`top_k` of those are the next level's beam. At the end the `nodes` best of everything that was offered, whatever its level, are
the claims: a path's probability falls along it, so they hang together.

Cost: one target call and at most `depth` draft calls a round, of `top_k` columns each; leaves are never asked. Lossless: the
tree is a function of the text, so a draw that matches a claim is accepted.

Beside the paper: only the tree, no EAGLE head; any model of the vocabulary drafts. Path probabilities are those at temperature 1,
as in the released code. That verifies deterministic claims one after another with ratio 1 in the draft's place, which is
the law of one draw that is matched with the children; so it is done here, and the text is that of plain sampling.
"""

from __future__ import annotations

from dataclasses import dataclass

from treewright.core.errors import require
from treewright.core.roles import Parts, Round
from treewright.parts.propose.growth import ask_level, best_children
from treewright.parts.propose.sketchpad import Sketchpad
from treewright.parts.verify.sample_then_match import SampleThenMatch

CARD = {
    "title": "EAGLE-2: Faster Inference of Language Models with Dynamic Draft Trees",
    "year": 2024,
    "link": "https://arxiv.org/abs/2406.16858",
    "card": None,
    "aliases": ["EAGLE-2", "dynamic draft trees"],
    "roles": ["propose", "verify"],
    "models": ["draft"],
    "needs": ["left_to_right", "tree"],
    "claims": ["lossless"],
}


@dataclass(frozen=True)
class Config:
    """
    nodes: claims a round, the frontier not counted
    top_k: nodes of a level that are expanded, and children that each offers
    depth: levels
    """

    nodes: int = 59
    top_k: int = 10
    depth: int = 7

    def __post_init__(self) -> None:
        require(self.nodes >= 1, "nodes", self.nodes, "an integer >= 1")
        require(self.top_k >= 1, "top_k", self.top_k, "an integer >= 1")
        require(self.depth >= 1, "depth", self.depth, "an integer >= 1")

    @property
    def asked(self) -> int:
        """The most columns that the draft model is asked about."""
        return 1 + self.top_k * (self.depth - 1)


class DynamicTree:
    def __init__(self, config: Config) -> None:
        self._config = config

    def propose(self, round: Round) -> None:
        config, nodes = self._config, min(self._config.nodes, round.claims - 1)
        if nodes < 1 or round.depth_left < 1:
            return
        pad = Sketchpad(round, "draft", config.asked)
        beams: list[list[int]] = [[0] for _ in pad.rows]
        for _ in range(min(config.depth, round.depth_left)):
            ask_level(pad, beams)
            # A node that is not among the best `nodes` of its level is not among the best of all.
            offered = best_children(pad, beams, config.top_k, max(nodes, config.top_k))
            beams = [best[: config.top_k] for best in offered]
        pad.place([sketch.best_nodes(nodes) for sketch in pad.rows])


def parts(config: Config) -> Parts:
    return Parts(propose=DynamicTree(config), verify=SampleThenMatch(), claims=config.nodes + 1, drafts=config.asked)
