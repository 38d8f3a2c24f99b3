"""DoLa: what the model's last layer believes more than one of its own earlier layers does, among what it finds plausible.

Chuang et al. 2024, "DoLa: Decoding by Contrasting Layers Improves Factuality in Large Language Models"
(https://arxiv.org/abs/2309.03883). Facts are thought to enter in later layers, so what an early exit says already is mere
fluency. Among candidate layers the premature one is that whose distribution q is farthest from the last layer's p in
Jensen-Shannon divergence, chosen anew at every token; the score of v is log p(v) - log q(v) where p(v) >= alpha max p, all
other tokens are forbidden. The paper advises a repetition penalty of 1.2, which is an option of sampling here.

Cost: no further call of any model; at each claim a walk visits, one projection of the candidates' hidden states to logits.
Any drafter and any constraint goes with it. A compiled model scores eagerly under it, since its graph keeps no layers.

Beside the paper: `norm: false` leaves the final norm out before the output matrix, as the released code does, and
`divergence: "released"` is its formula, KL(m || p) + KL(m || q) over the mixture m, which is the paper's with arguments
exchanged and picks other layers. The released code averages the divergence over the batch, so a row's text depends on its
neighbours; here each row chooses alone. Where a constraint forbids tokens, p and q are those of the tokens that are left.
The last layer contrasted with itself would tie all plausible tokens; it says nothing and leaves the law as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from treewright.core.errors import InputError, require
from treewright.core.exits import Others
from treewright.core.roles import Parts
from treewright.ops.softmax import log_softmax
from treewright.parts.steer.own_prompt import OwnPrompt

CARD = {
    "title": "DoLa: Decoding by Contrasting Layers Improves Factuality in Large Language Models",
    "year": 2024,
    "link": "https://arxiv.org/abs/2309.03883",
    "card": None,
    "aliases": ["contrasting_layers"],
    "roles": ["steer"],
    "models": [],
    "needs": ["left_to_right", "exit_layers"],
    "claims": ["composable"],
}
DEEP = 40
"""Layers beyond which a bucket is the lowest or highest HALF of them, no longer half of the model."""
HALF = 20


@dataclass(frozen=True)
class Config:
    """
    layers: candidates: "low" or "high", every second layer of the lower or upper half; or numbers, 0 for the embeddings
    alpha: share of the largest probability below which a token is not plausible; 0 for all tokens
    divergence: "jensen_shannon" as in the paper, or the formula "released" with it
    norm: send early states through the final norm too; the released code does not
    """

    layers: Literal["low", "high"] | tuple[int, ...] = "low"
    alpha: float = 0.1
    divergence: Literal["jensen_shannon", "released"] = "jensen_shannon"
    norm: bool = True

    def __post_init__(self) -> None:
        fine = isinstance(self.layers, str) or min(self.layers, default=-1) >= 0
        require(fine, "layers", self.layers, "low, high, or one or more numbers >= 0")
        require(0 <= self.alpha <= 1, "alpha", self.alpha, "a number in [0, 1]")


def bucket(name: str, last: int, tied: bool) -> list[int]:
    """The candidates of a bucket in a model of `last` layers. Where embeddings are tied the lower ones are left out, for an
    exit there mostly repeats the token; a model too shallow for that keeps one layer."""
    if name == "high":
        return list(range(last - HALF if last > DEEP else last // 2, last, 2))
    start = min(2, last - 1) if tied else 0
    return list(range(start, HALF if last > DEEP else last // 2, 2)) or [start]


class DoLa(OwnPrompt):
    """Steering by what an earlier layer would have said too."""

    def __init__(self, config: Config) -> None:
        self._config = config

    def steer(self, logits: np.ndarray, others: Others, prefix: np.ndarray, row: tuple[int, int]) -> np.ndarray:
        layers, allowed = self._candidates(others), np.flatnonzero(logits > -np.inf)
        mature = log_softmax(logits[allowed])
        premature = log_softmax(others.exits(layers, self._config.norm)[:, allowed])
        farthest = int(self._divergence(mature, premature).argmax())
        if layers[farthest] == others.layers:
            return logits
        with np.errstate(divide="ignore"):
            plausible = mature >= mature.max() + np.log(self._config.alpha)
        scores = np.full(len(logits), -np.inf)
        scores[allowed[plausible]] = (mature - premature[farthest])[plausible]
        return scores

    def _candidates(self, others: Others) -> list[int]:
        layers = self._config.layers
        if isinstance(layers, str):
            return bucket(layers, others.layers, others.tied)
        if max(layers) > others.layers:
            raise InputError(f"layers is {layers}; allowed: low, high, or numbers from 0 to {others.layers}, this model's last")
        return list(layers)

    def _divergence(self, mature: np.ndarray, premature: np.ndarray) -> np.ndarray:
        """How far each premature law [K, V] is from the mature one [V], both as log-probabilities."""
        p, q = np.exp(mature), np.exp(premature)
        mixture = 0.5 * (p + q)
        log_mixture = np.log(np.maximum(mixture, np.finfo(float).tiny))
        if self._config.divergence == "released":
            terms = mixture * (2 * log_mixture - mature - premature)
        else:
            terms = p * (mature - log_mixture) + q * (premature - log_mixture)
        return 0.5 * terms.sum(axis=-1)


def parts(config: Config) -> Parts:
    return Parts(steer=(DoLa(config),), layers=True)
