"""Contrastive decoding: what an expert believes more than an amateur does, among what the expert finds plausible.

Li et al. 2022, "Contrastive Decoding: Open-ended Text Generation as Optimization" (https://arxiv.org/abs/2210.15097), and
O'Brien & Lewis 2023, "Contrastive Decoding Improves Reasoning in Large Language Models" (https://arxiv.org/abs/2309.09117).
Plausible is a token v with p_expert(v) >= alpha max p_expert; all others are forbidden. Form "reasoning" (the second paper):
(1 + beta) z_expert - beta z_amateur, logits. Form "original" (the first): log p_expert - log p_amateur, the amateur at
`amateur_temperature`.

Cost: one amateur call for each target call, over the same claims. Any drafter goes with it.

Beside the papers: the first one searches with five beams; here the scores are a law like any other, greedy at temperature 0.
In the original form an amateur that equals the expert ties all plausible tokens, and the lowest id wins.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from treewright.core.errors import require
from treewright.core.roles import Parts
from treewright.parts.steer.contrast import Contrast

CARD = {
    "title": "Contrastive Decoding: Open-ended Text Generation as Optimization",
    "year": 2022,
    "link": "https://arxiv.org/abs/2210.15097",
    "card": None,
    "aliases": ["CD"],
    "roles": ["steer"],
    "models": ["amateur"],
    "needs": ["left_to_right"],
    "claims": ["composable"],
}


@dataclass(frozen=True)
class Config:
    """
    form: "reasoning" adds to the expert's logits, "original" takes the bare difference of log-probabilities
    alpha: share of the largest probability below which a token is not plausible
    beta: strength of the form "reasoning"; 0 leaves the expert on its plausible tokens
    amateur_temperature: of the form "original"
    """

    form: Literal["reasoning", "original"] = "reasoning"
    alpha: float = 0.1
    beta: float = 0.5
    amateur_temperature: float = 1.0

    def __post_init__(self) -> None:
        require(0 < self.alpha <= 1, "alpha", self.alpha, "a number in (0, 1]")
        require(self.amateur_temperature > 0, "amateur_temperature", self.amateur_temperature, "a number > 0")


def parts(config: Config) -> Parts:
    contrast = Contrast(config.form, config.alpha, config.beta, config.amateur_temperature)
    return Parts(steer=(contrast,))
