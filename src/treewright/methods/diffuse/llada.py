"""LLaDA's sampler: a canvas of masks is filled in blocks from left to right, so many slots a step, the surest first.

Nie et al. 2025, "Large Language Diffusion Models" (https://arxiv.org/abs/2502.09992). A step reads the whole canvas once. For
every open slot of the block a token is proposed: the most probable one, or at a temperature one drawn from the request's law.
Of these the best ranked become text and are never touched again; the others are forgotten ("remasked"). Dream's sampler
(Ye et al. 2025, https://arxiv.org/abs/2508.15487) is the same loop with other ranks: maskgit_plus is `confidence`, topk_margin
`margin`, and entropy `entropy`. MDLM's first-hitting sampler is `random`, one slot a step.

Cost: one target call a step, `steps` or the number of slots over `tokens` of them.

What is exact, at temperature 1 and one slot a step, for a network that knows the true conditionals (tests by enumeration):
the ranks that look at the state alone (`top`, `margin`, `entropy`, `random`) draw from the joint law. `confidence`, the paper's
own, ranks by the token that was drawn, which favours probable tokens like a hidden lower temperature. Two slots a step are
drawn as if they knew nothing of each other, so no rank is exact.

Beside the paper: noise is an inverse CDF in float64, which is the same law as Gumbel noise in float64, and keyed by slot and
open slots. Ranks are of the law at temperature 1 in float32 or better, also Dream's. `steps` need not divide: the first
blocks and steps take the remainder. Dream's schedule, which fills nothing in its first step and two slots in its last, is not
copied. Without: classifier-free guidance, and the switch that forbids end of text (use `min_new_tokens`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from treewright.core.errors import require
from treewright.core.roles import Parts, Round, TargetLaw, Verdict
from treewright.parts.diffuse.static import Static

CARD = {
    "title": "Large Language Diffusion Models",
    "year": 2025,
    "link": "https://arxiv.org/abs/2502.09992",
    "card": None,
    "aliases": ["dream", "maskgit"],
    "roles": ["verify"],
    "models": [],
    "needs": ["any_order"],
    "claims": ["fills_canvas"],
}


@dataclass(frozen=True)
class Config:
    """
    block: slots of a block; 0: the whole canvas is one
    tokens: slots that a step fills, where `steps` is 0
    steps: steps for the whole canvas; 0: as many as `tokens` needs
    rank: which slot comes first; "confidence" is the paper's low-confidence remasking
    ends_last: fill slots with end of text last, as the paper does for long canvases
    """

    block: int = 0
    tokens: int = 1
    steps: int = 0
    rank: Literal["confidence", "top", "margin", "entropy", "random"] = "confidence"
    ends_last: bool = False

    def __post_init__(self) -> None:
        require(self.block >= 0, "block", self.block, "an integer >= 0")
        require(self.tokens >= 1, "tokens", self.tokens, "an integer >= 1")
        require(self.steps >= 0, "steps", self.steps, "an integer >= 0")


class StaticDecoding:
    """Fills what the schedule says, by the answer to the canvas as it is."""

    def __init__(self, schedule: Static) -> None:
        self._schedule = schedule

    def verify(self, round: Round, law: TargetLaw) -> Verdict:
        answers, text = round.answers["target"], round.text
        fills = [self._schedule.plan(round, answers, row, 0, text.of(row), 1)[0] for row in range(round.rows)]
        return Verdict([[] for _ in fills], [-1] * round.rows, fills=fills)


def parts(config: Config) -> Parts:
    schedule = Static(config.block, config.tokens, config.steps, config.rank, config.ends_last)
    return Parts(verify=StaticDecoding(schedule), bonus=False)
