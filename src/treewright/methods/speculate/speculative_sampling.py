"""Speculative sampling: a small model writes a few tokens ahead, the target checks them all in one call.

Leviathan et al. 2023 (https://arxiv.org/abs/2211.17192) and Chen et al. 2023 (https://arxiv.org/abs/2302.01318). The draft
is a chain of `tokens` draws from the draft model's own warped law q; a token is accepted with probability min(1, p/q), and
the first that is refused is replaced by a draw from norm([p - q]+). At temperature 0 drafts are argmaxes.

Cost: one target call and `tokens` draft calls a round. Lossless for any draft model of the same vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

from treewright.core.errors import require
from treewright.core.roles import Parts
from treewright.parts.propose.draft_model import DraftChain, ask_model
from treewright.parts.verify.rejection import Rejection

CARD = {
    "title": "Fast Inference from Transformers via Speculative Decoding",
    "year": 2022,
    "link": "https://arxiv.org/abs/2211.17192",
    "card": None,
    "aliases": ["speculative decoding", "SpS", "Accelerating Large Language Model Decoding with Speculative Sampling"],
    "roles": ["propose", "verify"],
    "models": ["draft"],
    "translated": {"draft": "shared"},
    "needs": ["left_to_right", "tree"],
    "claims": ["lossless"],
    "tables": {"tokens": 2},
}


@dataclass(frozen=True)
class Config:
    """
    tokens: drafts a round (gamma)
    """

    tokens: int = 5

    def __post_init__(self) -> None:
        require(self.tokens >= 1, "tokens", self.tokens, "an integer >= 1")


def parts(config: Config) -> Parts:
    return Parts(
        propose=DraftChain(ask_model("draft"), config.tokens),
        verify=Rejection(),
        probabilities=True,
        claims=config.tokens + 1,
        row_drafts=True,
    )
