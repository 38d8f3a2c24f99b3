"""SpecInfer: a draft model grows a token tree level by level, the target checks the whole tree in one call.

Miao et al. 2024, "SpecInfer: Accelerating Large Language Model Serving with Tree-based Speculative Inference and
Verification" (https://arxiv.org/abs/2305.09781). `expansion` says how many children each claim of a level gets.

Cost: one target call and len(expansion) draft calls a round. Lossless by multi-step speculative sampling: children are
tried in the order they were drawn against a shrinking residual. The paper draws children with replacement; a repeated draw
is then a second trial at the same node. Here repeats are left out, which makes the children draws without replacement, and
the residual is that of such draws: exact as well, and no column is wasted. (Dropping repeats while keeping the residual of
independent draws would be biased.) At temperature 0 children are the most probable tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

from treewright.core.errors import require
from treewright.core.roles import Parts
from treewright.parts.propose.draft_model import DraftTree, ask_model, full_tree, tree_size
from treewright.parts.verify.rejection import Rejection

CARD = {
    "title": "SpecInfer: Accelerating Large Language Model Serving with Tree-based Speculative Inference and Verification",
    "year": 2023,
    "link": "https://arxiv.org/abs/2305.09781",
    "card": None,
    "aliases": ["MSS", "multi-step speculative sampling"],
    "roles": ["propose", "verify"],
    "models": ["draft"],
    "translated": {"draft": "shared"},
    "needs": ["left_to_right", "tree"],
    "claims": ["lossless"],
}


@dataclass(frozen=True)
class Config:
    """
    expansion: children of each claim, level by level
    """

    expansion: tuple[int, ...] = (1, 1, 3, 1, 1, 1, 1, 1)

    def __post_init__(self) -> None:
        require(
            bool(self.expansion) and min(self.expansion) >= 1,
            "expansion",
            self.expansion,
            "a list of integers >= 1, such as [2,2,1]",
        )


def parts(config: Config) -> Parts:
    levels = full_tree(config.expansion)
    return Parts(
        propose=DraftTree(ask_model("draft"), levels),
        verify=Rejection(),
        probabilities=True,
        claims=tree_size(levels),
        row_drafts=True,
    )
