"""D^3: the later a token stands in the answer, the fewer of the model's layers run for it.

Fan et al. 2025, "Position-Aware Depth Decay Decoding (D^3): Boosting Large Language Model Inference Efficiency"
(https://arxiv.org/abs/2503.08524). New token i, from 0, is predicted by n_i = max(least, floor(L alpha^i)) of the L layers. The
first and the last layers always run; the others are dropped from the middle, more and more of them. The prompt is read by
all. Nothing is trained.

Cost: one target call for each token, of n_i layers; over T tokens an average share of (1 - alpha^T) / (T (1 - alpha)).

Not lossless, and nothing is checked: a token's law is that of the layers that ran. alpha = 1 is plain decoding.

A layer that is left out writes no keys and values for its token. Since a set of dropped layers contains every earlier one, a
layer that runs finds those of all tokens before it, and no hole is ever read. i counts from the first new token of each
request. A drafter may be joined: the claims of a round are then all judged by the layers of the row's next token, so the text
depends on the drafts, and rows are decoded one after another, without memory of each other or of earlier runs, unless a row's
drafts are known to be its own (`Parts.row_drafts`).

Beside the paper: which layers are dropped first, the rounding, the least number and the handling of missing keys are our
reading; the paper was known to us from its abstract and from summaries. Its values of alpha were not, so the default runs
about two thirds of the layers over 256 tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import floor

from treewright.core.errors import CapabilityError, require
from treewright.core.layers import LayerPlan
from treewright.core.roles import Parts, Round, Turn
from treewright.core.session import Capabilities

CARD = {
    "title": "Position-Aware Depth Decay Decoding (D^3): Boosting Large Language Model Inference Efficiency",
    "year": 2025,
    "link": "https://arxiv.org/abs/2503.08524",
    "card": 143,
    "aliases": ["depth decay", "position-aware depth decay"],
    "roles": ["drive"],
    "models": [],
    "needs": ["left_to_right", "layers"],
    "claims": ["row_independent", "lossless_at_limit"],
    "limit": {"alpha": 1.0},
    "tables": {"alpha": 0.9},
}


@dataclass(frozen=True)
class Config:
    """
    alpha: share of the layers that stays from one token to the next; 1 for plain decoding
    least: layers that always run, however late the token; by default a quarter of the model's
    first: layers at the beginning that are never dropped
    last: layers at the end that are never dropped
    """

    alpha: float = 0.9966
    least: int | None = None
    first: int = 1
    last: int = 1

    def __post_init__(self) -> None:
        require(0 < self.alpha <= 1, "alpha", self.alpha, "a number in (0, 1]")
        require(self.least is None or self.least >= 1, "least", self.least, "an integer >= 1, or none")
        require(self.first >= 0, "first", self.first, "an integer >= 0")
        require(self.last >= 0, "last", self.last, "an integer >= 0")


class DepthDecay:
    """Driver: each row's part of the layers, by the number of its next token."""

    def __init__(self, config: Config) -> None:
        self._config = config

    def fits(self, has: Capabilities) -> None:
        """Raises CapabilityError where the layers that must stay are more than the model's."""
        config, depth = self._config, has.layers
        for name, count in (("least", config.least or 0), ("first and last together", config.first + config.last)):
            if count > depth:
                raise CapabilityError(f"d3's {name} is {count} and the model has {depth} layers; give at most {depth}")

    def plan(self, number: int, depth: int) -> LayerPlan:
        """The layers that predict new token `number`, from 0, in a model of `depth` layers."""
        config = self._config
        core = config.first + config.last
        least = max(core, config.least or depth // 4)
        kept = max(least, floor(depth * config.alpha**number))
        begin = (config.first + depth - config.last - (depth - kept)) // 2
        dropped = range(begin, begin + depth - kept)
        return LayerPlan.without(depth, dropped, dropped)

    def turns(self, round: Round) -> Sequence[Turn]:
        depth, text = round.layers["target"], round.text
        plans = [self.plan(int(number), depth) for number in text.length - text.prompt]
        return [Turn("target", None if plan.is_whole else plan) for plan in plans]


def parts(config: Config) -> Parts:
    decay = DepthDecay(config)
    return Parts(drive=decay, fits=(decay.fits,))
