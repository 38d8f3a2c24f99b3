"""Typical acceptance: a draft becomes text if the target finds it plausible enough, however it was drawn.

Cai et al. 2024, the acceptance rule of "Medusa" (https://arxiv.org/abs/2401.10774). At a claim whose law p has entropy H, a
drafted token x is accepted if p(x) > min(threshold, alpha exp(-H)): an open law lets more pass. Of all paths of the tree whose
tokens are all accepted the longest becomes text, the one with the larger sum of log p where several are as long. The token
after it is drawn from the law of its last claim.

Cost: nothing beside the drafter's own; it takes the place of the drafter's verifier, as in `medusa+typical_acceptance`.

Not lossless: drafts that pass are favoured over what the target would have drawn. At temperature 0 the law has one token, so
the text is plain greedy decoding's; with threshold 1 and alpha of the vocabulary's size or more nothing passes, and the text is
plain decoding's, token for token. Lower either of the two and no draft is refused that was accepted before. Without a drafter
it is plain decoding. The text depends on the drafts, so rows are decoded one after another and nothing is kept between them or
between runs, but for drafters whose drafts are known to be a row's own (`Parts.row_drafts`).

Beside the paper: p is the whole target law, with constraint, steering, penalties and warpers, as everywhere here; entropy is in
nats, with 1e-5 inside of the logarithm as in the released code. There one helper has the two defaults swapped; these are those
of its generation loop.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from treewright.core.claims import ABSENT
from treewright.core.errors import require
from treewright.core.roles import Parts, Round, TargetLaw, Verdict
from treewright.parts.verify.sample_then_match import weighted_walk

CARD = {
    "title": "Typical acceptance, of Medusa: Simple LLM Inference Acceleration Framework with Multiple Decoding Heads",
    "year": 2024,
    "link": "https://arxiv.org/abs/2401.10774",
    "card": None,
    "aliases": ["typical acceptance", "Medusa typical"],
    "roles": ["accept"],
    "models": [],
    "needs": ["left_to_right", "tree"],
    "claims": ["row_independent", "lossless_at_limit"],
    "limit": {"threshold": 1.0, "alpha": 1e6},
}

INSIDE = 1e-5
"""What the released code adds inside of the entropy's logarithm."""


@dataclass(frozen=True)
class Config:
    """
    threshold: probability above which a draft always passes (epsilon, posterior_threshold)
    alpha: share of exp(-entropy) above which it passes, too (delta, posterior_alpha); the paper has sqrt(threshold)
    """

    threshold: float = 0.09
    alpha: float = 0.3

    def __post_init__(self) -> None:
        require(0 <= self.threshold <= 1, "threshold", self.threshold, "a number in [0, 1]")
        require(self.alpha >= 0, "alpha", self.alpha, "a number >= 0")


class TypicalAcceptance:
    """Verifier by plausibility alone; how drafts were drawn plays no part."""

    def __init__(self, config: Config) -> None:
        self._config = config

    def bar(self, law: np.ndarray) -> float:
        """The probability that a token of the law [V] must exceed."""
        entropy = -float((law * np.log(law + INSIDE)).sum())
        return min(self._config.threshold, self._config.alpha * math.exp(-entropy))

    def verify(self, round: Round, law: TargetLaw) -> Verdict:
        paths, extra, weights = [], [], []
        for row in range(round.rows):
            if law.greedy:
                path, token, weight = weighted_walk(round, law, row)
            else:
                path = self._longest(round, law, row)
                token, last = law.draw(row, path[-1] if path else 0)
                weight = [0.0] * len(path) + [last]
            paths.append(path)
            extra.append(token)
            weights.append(weight)
        return Verdict(paths, extra, log_weight=weights, finished=[token < 0 for token in extra])

    def _longest(self, round: Round, law: TargetLaw, row: int) -> list[int]:
        """The longest path of accepted claims, of equal ones the most probable, of those the first."""
        children, claimed = round.forest.shape.children(row), round.forest.token[row]
        best, reached = (0, 0.0, 0), [(0, 0, 0.0)]
        while reached:
            column, depth, score = reached.pop()
            best = max(best, (depth, score, -column))
            present = [child for child in children[column] if claimed[child] != ABSENT]
            if not present:
                continue
            probability = law.probs(row, column)
            bar = self.bar(probability)
            for child in present:
                chance = float(probability[claimed[child]])
                if chance > bar:
                    reached.append((child, depth + 1, score + math.log(chance)))
        return round.forest.shape.path(row, -best[2])


def parts(config: Config) -> Parts:
    return Parts(accept=TypicalAcceptance(config), probabilities=True)
