"""OPT-Tree: the tree of `nodes` claims that is expected to accept most, as deep as that pays.

Wang et al. 2024, "OPT-Tree: Speculative Decoding with Adaptive Draft Tree Structure" (https://arxiv.org/abs/2406.17276). If the
target accepts a token as often as the draft model says it, the expected number of accepted tokens is the sum of the path
probabilities of all nodes, and the best tree of n nodes is the n nodes of the largest. Levels are drafted until one more
raises that sum E by no more than `threshold`.

Cost: one target call a round and a draft call for each level, at most `depth`. Lossless: the tree is a function of the text, one
target token is drawn for each visited node, and the walk goes on while it was claimed.

Beside the paper: of a level only the nodes that are among the n best so far are expanded, since children of the others
cannot be among them either; the tree is the same. The released code drafts a level more than it can use and tests the threshold
one level late; here E is that of all levels so far. Of equal paths the shallower is taken, so that claims hang together.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from treewright.core.errors import require
from treewright.core.roles import Parts, Round
from treewright.parts.propose.growth import ask_level, best_children
from treewright.parts.propose.sketchpad import Sketch, Sketchpad
from treewright.parts.verify.sample_then_match import SampleThenMatch

CARD = {
    "title": "OPT-Tree: Speculative Decoding with Adaptive Draft Tree Structure",
    "year": 2024,
    "link": "https://arxiv.org/abs/2406.17276",
    "card": 68,
    "aliases": ["OPT-Tree"],
    "roles": ["propose", "verify"],
    "models": ["draft"],
    "needs": ["left_to_right", "tree"],
    "claims": ["lossless"],
}


@dataclass(frozen=True)
class Config:
    """
    nodes: claims a round, the frontier not counted
    threshold: expected tokens that one more level must add; 0 drafts while anything is gained
    depth: the most levels
    """

    nodes: int = 50
    threshold: float = 0.5
    depth: int = 10

    def __post_init__(self) -> None:
        require(self.nodes >= 1, "nodes", self.nodes, "an integer >= 1")
        require(self.threshold >= 0, "threshold", self.threshold, "a number >= 0")
        require(self.depth >= 1, "depth", self.depth, "an integer >= 1")

    @property
    def asked(self) -> int:
        """The most columns that the draft model is asked about."""
        return 1 + self.nodes * (self.depth - 1)


class OptimalTree:
    def __init__(self, config: Config) -> None:
        self._config = config

    def propose(self, round: Round) -> None:
        config, nodes = self._config, min(self._config.nodes, round.claims - 1)
        if nodes < 1 or round.depth_left < 1:
            return
        pad = Sketchpad(round, "draft", config.asked)
        level: list[list[int]] = [[0] for _ in pad.rows]
        expected = [0.0] * len(pad.rows)
        for _ in range(min(config.depth, round.depth_left)):
            ask_level(pad, level)
            level = best_children(pad, level, nodes, nodes)
            for row, sketch in enumerate(pad.rows):
                before, expected[row] = expected[row], expected_tokens(sketch, nodes)
                newest = set(level[row]) if expected[row] - before > config.threshold else set()
                level[row] = [node for node in sketch.best_nodes(nodes) if node in newest]
            if not any(level):
                break
        pad.place([sketch.best_nodes(nodes) for sketch in pad.rows])


def expected_tokens(sketch: Sketch, nodes: int) -> float:
    """E: the sum of the `nodes` largest path probabilities."""
    return float(np.sort(np.exp(sketch.values[1:]))[::-1][:nodes].sum())


def parts(config: Config) -> Parts:
    return Parts(propose=OptimalTree(config), verify=SampleThenMatch(), claims=config.nodes + 1, drafts=config.asked)
