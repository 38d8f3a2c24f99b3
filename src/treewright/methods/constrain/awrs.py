"""AWRS: draw the model's token, ask whether it is allowed, and if not draw again among the others; no mask is ever computed.

Lipkin et al. 2025, "Fast Controlled Generation from Language Models with Adaptive Weighted Rejection Sampling"
(https://arxiv.org/abs/2504.05410). Tokens come one after another without replacement from the model's law p. The first that
the constraint allows is the token; it has exactly the law p(t) / Z, Z being the mass of all allowed tokens, as if all V had
been asked. What was refused on the way, and one look at the next token in the order, estimate Z: the mass of the accepted
token, and, if the next one is allowed too, all that had not been seen when it was drawn. That number has the mean Z whatever
token was drawn and whatever was refused before, so its product along a text is the text's importance weight: weighted texts
follow p conditioned on the constraint, which sampling under a mask does not (`smc` resamples by these weights).

Cost: one target call for each token. Up to the token 1 + sum of p(r) / (p(r) + Z) questions over the refused tokens r, never
more than 1 / Z and mostly far fewer than V, then `looks` further ones; the trace counts them (`checks_per_token`). No other
model. Where nothing is allowed all tokens of the law are asked; `limit` bounds that. Constraints come after temperature,
top-k and the other warpers: the law is what they allow of the warped law, and a nucleus in which nothing is allowed is a
dead end. At temperature 0 tokens are asked in falling order, and the first that is allowed is the argmax under the constraint.

Beside the paper: the estimator is that of the released code for one look ("recursive"). Its other one, which counts draws
with replacement and asks less where one token has most of the mass, is left out. In its place `looks` may be raised: masses
of allowed tokens that were seen are then known, and only the rest is estimated (Des Raj's estimator), exactly where all are
seen. `limit` counts what is given up as forbidden, so weights are then too small in the mean, never too large.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import count

import numpy as np

from treewright.core.errors import require
from treewright.core.roles import Parts
from treewright.ops.order import falling

CARD = {
    "title": "Fast Controlled Generation from Language Models with Adaptive Weighted Rejection Sampling",
    "year": 2025,
    "link": "https://arxiv.org/abs/2504.05410",
    "card": 7,
    "aliases": ["adaptive weighted rejection sampling"],
    "roles": ["draw"],
    "models": [],
    "needs": ["left_to_right"],
    "claims": ["lazily_constrained", "properly_weighted"],
}


@dataclass(frozen=True)
class Config:
    """
    looks: tokens asked after the accepted one, to estimate the allowed mass; 0 asks none, and every weight is 1
    limit: refused tokens after which a row is given up as a dead end; None asks on to the last
    """

    looks: int = 1
    limit: int | None = None

    def __post_init__(self) -> None:
        require(self.looks >= 0, "looks", self.looks, "an integer >= 0")
        require(self.limit is None or self.limit >= 1, "limit", self.limit, "an integer >= 1")


class AdaptiveRejection:
    """The law's tokens in a random order, drawn without replacement, until the constraint allows one."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self.weighs = config.looks > 0

    def draw(self, law: np.ndarray, allowed: Callable[[int], bool], index: Callable[[np.ndarray, int], int]) -> tuple[int, float]:
        tokens = np.flatnonzero(law)
        left, trials = law[tokens], count()
        total = float(left.sum())

        def ask() -> tuple[int, float, bool]:
            """The next token of the order, its mass, and whether it is allowed."""
            place = index(left, next(trials))
            token, mass = int(tokens[place]), float(left[place])
            left[place] = 0.0
            return token, mass, allowed(token)

        for _ in range(len(tokens) if self._config.limit is None else min(len(tokens), self._config.limit)):
            token, mass, fits = ask()
            if fits:
                return token, float(np.log(self._mass(mass, left, ask) / total)) if self.weighs else 0.0
        return -1, -np.inf

    def _mass(self, accepted: float, left: np.ndarray, ask: Callable[[], tuple[int, float, bool]]) -> float:
        """An unbiased estimate of the mass that is allowed, given all that has been seen. Sums of what is left, not one minus
        what is gone: the only allowed token may be rarer than rounding."""
        known = accepted
        for look in range(self._config.looks):
            unseen = float(left.sum())
            if unseen == 0:
                break
            _, mass, fits = ask()
            known += fits * (unseen if look + 1 == self._config.looks else mass)
        return known

    def largest(self, logits: np.ndarray, allowed: Callable[[int], bool]) -> int:
        order, limit = falling(logits), self._config.limit
        tries = zip(range(len(logits) if limit is None else limit), order, strict=False)
        return next((token for _, token in tries if allowed(token)), -1)


def parts(config: Config) -> Parts:
    return Parts(draw=AdaptiveRejection(config))
