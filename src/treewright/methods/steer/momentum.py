"""Momentum decoding: greedy while tokens are new; a token that would repeat an n-gram meets a resistance that grows with n.

Lan et al. 2022, "Momentum Decoding: Open-ended Text Generation As Graph Exploration" (https://arxiv.org/abs/2212.02175). Among
the k most probable tokens c the score is p(c) - alpha f(l(c)): l is 0 for a token that the text, prompt included, does not
hold, else the longest n <= 5 such that the last n - 1 tokens followed by c stand in the text already. Lengths beyond the
table of f are forbidden.

Cost: one target call for each token, and a look at the text so far.

Beside the paper: `resistance` is the table the paper describes; the released code ships another, 0, 0, 0, 0, 5, which is a
4-gram block meant for k = 2000. The method is made for temperature 0; above it the scores are sampled as if they were
logits. Where all k tokens are forbidden the most probable of them is taken, as the released code's argmax does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from treewright.core.errors import require
from treewright.core.request import Sampling
from treewright.core.roles import Parts
from treewright.ops.warp import probabilities
from treewright.parts.fitting import within_vocabulary
from treewright.parts.steer.own_prompt import OwnPrompt

CARD = {
    "title": "Momentum Decoding: Open-ended Text Generation As Graph Exploration",
    "year": 2022,
    "link": "https://arxiv.org/abs/2212.02175",
    "card": 20,
    "aliases": [],
    "roles": ["steer"],
    "models": [],
    "needs": ["left_to_right"],
    "claims": ["composable"],
}
LONGEST = 5
"""The longest repeated n-gram that is told from a longer one."""

UNCUT = Sampling(1.0)


@dataclass(frozen=True)
class Config:
    """
    k: candidates, at most the vocabulary
    alpha: weight of the resistance; 0 is greedy
    resistance: f(0), f(1) ...; what is not listed is infinite
    """

    k: int = 5
    alpha: float = 0.2
    resistance: tuple[float, ...] = (0.0, 1.0, 2.0, 3.0, 4.0, 5.0)

    def __post_init__(self) -> None:
        require(self.k >= 1, "k", self.k, "an integer >= 1")
        require(self.alpha >= 0, "alpha", self.alpha, "a number >= 0")


def repeated(prefix: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    """For each candidate, the longest n <= 5 such that the last n - 1 tokens of the prefix [L] followed by it occur there."""
    before = np.zeros(len(prefix), np.int64)
    same = np.ones(len(prefix), bool)
    for back in range(1, min(LONGEST, len(prefix))):
        same[:back] = False
        same[back:] &= prefix[: len(prefix) - back] == prefix[-back]
        before += same
    return np.array([1 + before[prefix == token].max() if (prefix == token).any() else 0 for token in candidates])


class Momentum(OwnPrompt):
    """Steering by what the text holds already."""

    def __init__(self, config: Config) -> None:
        self._config = config

    def steer(self, logits: np.ndarray, others: Mapping[str, np.ndarray], prefix: np.ndarray, row: tuple[int, int]) -> np.ndarray:
        law = probabilities(logits, UNCUT)
        candidates = np.argsort(-law, kind="stable")[: self._config.k]
        table = np.full(LONGEST + 1, np.inf)
        table[: len(self._config.resistance)] = self._config.resistance[: LONGEST + 1]
        lengths = repeated(prefix, candidates)
        scores = np.full(len(law), -np.inf)
        scores[candidates] = law[candidates] - (self._config.alpha * table[lengths] if self._config.alpha else 0.0)
        if not np.isfinite(scores).any():
            scores[candidates[0]] = 0.0
        return scores


def parts(config: Config) -> Parts:
    return Parts(steer=(Momentum(config),), fits=(within_vocabulary("k", config.k),))
