"""EasySpec: a draft model whose layers attend side by side, in groups that read one input.

Wu et al. 2025, "EasySpec: Layer-Parallel Speculative Decoding for Efficient Multi-GPU Utilization"
(https://arxiv.org/abs/2502.02493). While drafting, the attention parts of `group` consecutive layers of the draft model all
read the states that enter the first of them; feed-forward parts stay in order. Devices can then compute a group's attention
at once. The keys and values that come of it are inexact, so before a round drafts, the draft model reads the tokens that the
last one brought in its own order ("calibration"); that forward's last answer is the first draft's law, so it costs no more
than a draft.

Cost: one target call and one draft call for each level of the tree a round, the first of them in full order. Lossless: what
the drafts are judged by is the law of the layers as they ran. group = 1 is ordinary speculative sampling.

What one machine can show: the law, what accepts how much at which group, and that errors do not pile up. What it cannot: the
gain. The layers of a group run one after another here, so a draft takes as long as in the model's own order.

Beside the paper: its trees take the best paths of the draft model; here `expansion` fixes how many children each claim of a
level has, drawn from the drafter's law (the most probable tokens at temperature 0).
"""

from __future__ import annotations

from dataclasses import dataclass

from treewright.core.answers import Answers
from treewright.core.errors import require
from treewright.core.layers import LayerPlan
from treewright.core.roles import Parts, Proposer, Round
from treewright.parts.propose.draft_model import DraftChain, DraftTree, full_tree, tree_size
from treewright.parts.verify.rejection import Rejection

CARD = {
    "title": "EasySpec: Layer-Parallel Speculative Decoding for Efficient Multi-GPU Utilization",
    "year": 2025,
    "link": "https://arxiv.org/abs/2502.02493",
    "card": 165,
    "aliases": ["layer-parallel speculation"],
    "roles": ["propose", "verify"],
    "models": {"draft": ["layers"]},
    "needs": ["left_to_right", "tree"],
    "claims": ["lossless"],
    "tables": {"expansion": [2, 1]},
}


@dataclass(frozen=True)
class Config:
    """
    group: consecutive layers whose attention reads one input; 1 for the model's own order
    expansion: children of each claim, level by level; all 1 for a chain
    """

    group: int = 4
    expansion: tuple[int, ...] = (1, 1, 1, 1, 1)

    def __post_init__(self) -> None:
        require(self.group >= 1, "group", self.group, "an integer >= 1")
        wide = bool(self.expansion) and min(self.expansion) >= 1
        require(wide, "expansion", self.expansion, "a list of integers >= 1, such as [2,2,1]")


class SideBySide:
    """Asks the draft model: exactly at the frontier, which also calibrates its memory, in groups below it."""

    def __init__(self, group: int) -> None:
        self._group = group

    def __call__(self, round: Round) -> Answers:
        session, depth = round.sessions["draft"], round.layers["draft"]
        if round.forest.columns == 1:
            return session.root()
        every = frozenset(range(depth))
        return session.sketch(round.forest, LayerPlan(depth, every, every, self._group))


def parts(config: Config) -> Parts:
    ask, levels = SideBySide(config.group), full_tree(config.expansion)
    chain = max(config.expansion) == 1
    propose: Proposer = DraftChain(ask, len(levels)) if chain else DraftTree(ask, levels)
    return Parts(propose=propose, verify=Rejection(), probabilities=True, claims=tree_size(levels), row_drafts=True)
