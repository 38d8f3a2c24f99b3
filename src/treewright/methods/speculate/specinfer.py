"""SpecInfer: a draft model grows a token tree level by level, the target checks the whole tree in one call.

Miao et al. 2024, "SpecInfer: Accelerating Large Language Model Serving with Tree-based Speculative Inference and
Verification" (https://arxiv.org/abs/2305.09781). `expansion` says how many children each claim of a level gets.

Cost: one target call and len(expansion) draft calls a round. Lossless by multi-step speculative sampling: children are
tried in the order they were drawn against a shrinking residual. The paper draws children with replacement (`draws=iid`): a
repeated draw is then a second trial with the same law, in a column of its own. With `draws=swor`, the default, repeats are left
out, which makes the children draws without replacement, and the residual is that of such draws: exact as well, no column is
wasted, and a token refused once is not tried again. (Dropping repeats while keeping the residual of independent draws would be
biased.) At temperature 0 children are the most probable tokens, and both are one.

Beside the paper: there is one draft model. The paper may merge the trees of several that were boosted to differ, each child
checked by the law of its own drafter; here a recipe has one seat for a draft model, and a claim's children have one law.
`rasd` merges the trees of two drafters where both are functions of the text, and `banditspec` gives rounds to whole recipes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from treewright.core.claims import Law
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
    draws: draw siblings without replacement, or independently of each other, as published
    """

    expansion: tuple[int, ...] = (1, 1, 3, 1, 1, 1, 1, 1)
    draws: Literal["swor", "iid"] = "swor"

    def __post_init__(self) -> None:
        require(
            bool(self.expansion) and min(self.expansion) >= 1,
            "expansion",
            self.expansion,
            "a list of integers >= 1, such as [2,2,1]",
        )
        require(self.draws in ("swor", "iid"), "draws", self.draws, "'swor' or 'iid'")


def parts(config: Config) -> Parts:
    levels = full_tree(config.expansion)
    return Parts(
        propose=DraftTree(ask_model("draft"), levels, Law.IID if config.draws == "iid" else Law.SWOR),
        verify=Rejection(),
        probabilities=True,
        claims=tree_size(levels),
        row_drafts=True,
    )
