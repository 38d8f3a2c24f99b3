"""Recursive speculative decoding, constant branching: a tree whose siblings are drawn without replacement.

Jeon et al. 2024, "Recursive Speculative Decoding: Accelerating LLM Inference via Sampling Without Replacement"
(https://arxiv.org/abs/2402.14160), the variant RSD-C. Every claim of level l gets branching[l] different children, tried in the
order they were drawn against a shrinking residual of the target law and of the draft law (recursive rejection sampling).

Cost: one target call and len(branching) draft calls a round. Lossless. At temperature 0 children are the most probable tokens.

Beside the paper: siblings come from draws one after another of what is left of the draft law, not from the largest of
perturbed log-probabilities. It is the same law of ordered children (the Gumbel-top-k trick), takes `branching` draws in place
of one for each token of the vocabulary, and its outcomes can be enumerated. `specinfer` with repeats left out is the same
tree by another name; the paper's own contribution is that its rejection is exact, and the other variant, `rsd_s`.
"""

from __future__ import annotations

from dataclasses import dataclass

from treewright.core.errors import require
from treewright.core.roles import Parts
from treewright.parts.propose.draft_model import DraftTree, ask_model, full_tree, tree_size
from treewright.parts.verify.rejection import Rejection

CARD = {
    "title": "Recursive Speculative Decoding: Accelerating LLM Inference via Sampling Without Replacement (RSD-C)",
    "year": 2024,
    "link": "https://arxiv.org/abs/2402.14160",
    "card": None,
    "aliases": ["RSD-C"],
    "roles": ["propose", "verify"],
    "models": ["draft"],
    "needs": ["left_to_right", "tree"],
    "claims": ["lossless"],
}


@dataclass(frozen=True)
class Config:
    """
    branching: children of each claim, level by level
    """

    branching: tuple[int, ...] = (2, 2, 2)

    def __post_init__(self) -> None:
        require(
            bool(self.branching) and min(self.branching) >= 1,
            "branching",
            self.branching,
            "a list of integers >= 1, such as [2,2,2]",
        )


def parts(config: Config) -> Parts:
    levels = full_tree(config.branching)
    return Parts(
        propose=DraftTree(ask_model("draft"), levels),
        verify=Rejection(),
        probabilities=True,
        claims=tree_size(levels),
        row_drafts=True,
    )
