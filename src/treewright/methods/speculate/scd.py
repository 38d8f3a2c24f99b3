"""Speculative contrastive decoding: the amateur of contrastive decoding writes the drafts too, one small model in two roles.

Yuan et al. 2023, "Speculative Contrastive Decoding" (https://arxiv.org/abs/2311.08981). The law to be kept is the contrastive
one: over the tokens that the expert finds plausible, softmax of (1 + beta) log p_expert - beta log p_amateur. The amateur
drafts a chain of `tokens` draws from its own law q, the expert scores it in one call, and each draft is accepted with
probability min(1, p_contrastive / q); the first that is refused is replaced by a draw from what is left of the contrastive law.

Cost: one target call and `tokens` + 1 amateur calls a round. The last amateur call is the paper's extra step: the law behind
the last draft is contrastive too, and a bonus token from the expert's own law there would break exactness.

The text has exactly the law of `contrastive_decoding` with the same options (the claim `composable`), which is another law than
the expert's. With beta 0 and alpha 0 it is speculative sampling.

Beside the paper: the score reads the amateur at temperature 1 and the drafts are drawn at the request's temperature and
warpers; both laws are kept apart. The paper's score of log-probabilities differs from the logits used here by a constant. The
form "original" of contrastive decoding may be drafted for as well.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from treewright.core.errors import require
from treewright.core.roles import Parts
from treewright.parts.propose.draft_model import DraftChain, ask_model
from treewright.parts.steer.contrast import Contrast
from treewright.parts.verify.rejection import Rejection

CARD = {
    "title": "Speculative Contrastive Decoding",
    "year": 2023,
    "link": "https://arxiv.org/abs/2311.08981",
    "card": 240,
    "aliases": ["speculative contrastive decoding"],
    "roles": ["propose", "verify", "steer"],
    "models": ["amateur"],
    "needs": ["left_to_right", "tree"],
    "claims": ["composable"],
}


@dataclass(frozen=True)
class Config:
    """
    tokens: drafts a round (gamma)
    form: "reasoning" adds to the expert's logits, "original" takes the bare difference of log-probabilities
    alpha: share of the largest probability below which a token is not plausible; 0 for all tokens
    beta: strength of the form "reasoning"; 0 leaves the expert on its plausible tokens
    amateur_temperature: of the form "original"
    """

    tokens: int = 4
    form: Literal["reasoning", "original"] = "reasoning"
    alpha: float = 0.1
    beta: float = 0.5
    amateur_temperature: float = 1.0

    def __post_init__(self) -> None:
        require(self.tokens >= 1, "tokens", self.tokens, "an integer >= 1")
        require(0 <= self.alpha <= 1, "alpha", self.alpha, "a number in [0, 1]")
        require(self.amateur_temperature > 0, "amateur_temperature", self.amateur_temperature, "a number > 0")


def parts(config: Config) -> Parts:
    contrast = Contrast(config.form, config.alpha, config.beta, config.amateur_temperature)
    chain = DraftChain(ask_model("amateur"), config.tokens)
    return Parts(propose=chain, verify=Rejection(), steer=(contrast,), probabilities=True, claims=config.tokens + 1)
