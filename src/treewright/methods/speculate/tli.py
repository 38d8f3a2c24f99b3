"""TLI: a draft model with another tokenizer drafts among the tokens that both vocabularies have.

Timor et al. 2025, "Accelerating LLM Inference with Lossless Speculative Decoding Algorithms for Heterogeneous Vocabularies"
(https://arxiv.org/abs/2502.05202), the token-level intersection. Tokens are matched by the bytes they spell; the draft's law is
cut to the intersection before it is sampled, q'(t) = q(t) / sum over the intersection, and speculative sampling does the rest: a
draft is accepted with probability min(1, p/q'), else the token comes from norm([p - q']+). Text outside of the intersection, a
prompt's or a correction's, is written for the draft by its own tokenizer.

Cost: one target call and at most `tokens` draft calls a round. Lossless. With one vocabulary it is `speculative_sampling`; with
nothing in common it drafts nothing. What is translated is the model and not the method, so `specinfer` and every other
method whose card says so takes such a draft in the same way.

Beside the paper: the released code cuts the draft's output matrix to the intersection, here the logits are cut. A draft
token that is there twice, as text and as a lone byte, counts once.
"""

from __future__ import annotations

from dataclasses import dataclass

from treewright.core.errors import require
from treewright.core.roles import Parts
from treewright.parts.propose.draft_model import DraftChain, ask_model
from treewright.parts.verify.rejection import Rejection

CARD = {
    "title": "Accelerating LLM Inference with Lossless Speculative Decoding Algorithms for Heterogeneous Vocabularies (TLI)",
    "year": 2025,
    "link": "https://arxiv.org/abs/2502.05202",
    "card": 226,
    "aliases": ["token-level intersection", "universal assisted generation with sampling"],
    "roles": ["propose", "verify"],
    "models": ["draft"],
    "translated": {"draft": "shared"},
    "needs": ["left_to_right", "tree"],
    "claims": ["lossless"],
}


@dataclass(frozen=True)
class Config:
    """
    tokens: drafts a round
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
