"""DExperts: an expert's logits less an anti-expert's push the base model's, within the base model's nucleus.

Liu et al. 2021, "DExperts: Decoding-Time Controlled Text Generation with Experts and Anti-Experts"
(https://aclanthology.org/2021.acl-long.522). z = z_base + alpha (z_expert - z_anti) over the tokens of the base model's
nucleus of mass `filter_p`, all others forbidden; so the law is p_base (p_expert / p_anti)^alpha, cut and normalised.

Cost: for each target call one call of the expert and one of the anti-expert over the same claims. Any drafter goes with it.

Beside the paper: with one model only, give the base model itself in the other's place, which is what the released code
means by leaving it out. There the filtered base stands in for it if filtering happens in place, and -inf - (-inf) follows;
here the differences are always those of unfiltered logits. The nucleus is taken at temperature 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from treewright.core.errors import require
from treewright.core.request import Sampling
from treewright.core.roles import Parts
from treewright.ops.warp import probabilities
from treewright.parts.steer.own_prompt import OwnPrompt

CARD = {
    "title": "DExperts: Decoding-Time Controlled Text Generation with Experts and Anti-Experts",
    "year": 2021,
    "link": "https://aclanthology.org/2021.acl-long.522",
    "card": 251,
    "aliases": ["experts"],
    "roles": ["steer"],
    "models": ["expert", "anti_expert"],
    "needs": ["left_to_right"],
    "claims": ["composable"],
}


@dataclass(frozen=True)
class Config:
    """
    alpha: strength; 2.0 for detoxification, 3.2 for sentiment in the paper, 0 leaves the base model's nucleus
    filter_p: mass of the base model's nucleus, outside of which nothing is allowed; 1 for all tokens
    """

    alpha: float = 2.0
    filter_p: float = 0.9

    def __post_init__(self) -> None:
        require(0 < self.filter_p <= 1, "filter_p", self.filter_p, "a number in (0, 1]")


class DExperts(OwnPrompt):
    """Steering by the difference of two models."""

    models: tuple[str, ...] = ("expert", "anti_expert")

    def __init__(self, config: Config) -> None:
        self._alpha, self._nucleus = config.alpha, Sampling(1.0, top_p=config.filter_p)

    def steer(self, logits: np.ndarray, others: Mapping[str, np.ndarray], prefix: np.ndarray, row: tuple[int, int]) -> np.ndarray:
        steered = logits + self._alpha * (others["expert"] - others["anti_expert"])
        return np.where(probabilities(logits, self._nucleus) > 0, steered, -np.inf)


def parts(config: Config) -> Parts:
    return Parts(steer=(DExperts(config),))
