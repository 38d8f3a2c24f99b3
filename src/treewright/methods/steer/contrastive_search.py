"""Contrastive search: of the k likeliest tokens the one whose own hidden state is least like any that went before.

Su et al. 2022, "A Contrastive Framework for Neural Text Generation" (https://arxiv.org/abs/2202.06417). The k most probable
tokens v of the target law are claims under the frontier; one forward gives each its own last hidden state h_v, and the
token taken is the one of the largest (1 - alpha) p(v) - alpha max_j cos(h_v, h_j), j over all earlier tokens, prompt
included. Its memory and its answer are kept, so the next round begins with them.

Cost: one target call of k claims for each token, and one for the prompt; k T H multiplications for the cosines with T
tokens. Models that steering combines are asked as often. alpha 0 and k 1 are greedy decoding exactly.

Beside the paper: the states are those of the last layer after the final norm, as transformers reports them and as the
released code reads them. p is the whole law at temperature 1, after constraint, steering and penalties. The search is
deterministic and refuses a temperature. Of tokens with equal scores the more probable wins. It takes the seats of
drafter and verifier, so no drafter goes with it; constraints, steering and penalties do.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from treewright.core.claims import ABSENT
from treewright.core.errors import InputError, require
from treewright.core.request import Sampling
from treewright.core.roles import Parts, Round, TargetLaw, Verdict
from treewright.ops.warp import probabilities
from treewright.parts.fitting import within_vocabulary

CARD = {
    "title": "A Contrastive Framework for Neural Text Generation",
    "year": 2022,
    "link": "https://arxiv.org/abs/2202.06417",
    "card": 191,
    "aliases": ["SimCTG"],
    "roles": ["propose", "verify"],
    "models": [],
    "needs": ["left_to_right", "tree", "hidden"],
    "claims": ["row_independent"],
}
UNCUT = Sampling(1.0)


@dataclass(frozen=True)
class Config:
    """
    k: candidates for each token, at most the vocabulary; 4 to 8 in the paper
    alpha: weight of the likeness to earlier states; 0 is greedy, larger models want less
    """

    k: int = 5
    alpha: float = 0.6

    def __post_init__(self) -> None:
        require(self.k >= 1, "k", self.k, "an integer >= 1")
        require(0 <= self.alpha <= 1, "alpha", self.alpha, "a number in [0, 1]")


class ContrastiveSearch:
    """Proposer of the likeliest tokens, and the verifier that chooses among them."""

    def __init__(self, config: Config) -> None:
        self._config = config

    def propose(self, round: Round) -> None:
        count = min(self._config.k, round.vocabulary)
        if round.claims <= count:
            raise InputError(
                f"contrastive_search compares {count} candidates and a round may hold {round.claims - 1}; lower k, or leave "
                "out what limits the claims"
            )
        law = round.frontier_law()
        tokens = [likeliest(law.logits(row, 0), count) for row in range(round.rows)]
        round.forest.grow([0] * count, np.stack(tokens))

    def verify(self, round: Round, law: TargetLaw) -> Verdict:
        paths: list[list[int]] = []
        for row in range(round.rows):
            tokens = round.forest.token[row, 1:]
            present = np.flatnonzero(tokens != ABSENT)
            if len(present):
                chance = probabilities(law.logits(row, 0), UNCUT)[tokens[present]]
                score = (1 - self._config.alpha) * chance - self._config.alpha * self._likeness(round, row, present)
                paths.append([1 + int(present[score.argmax()])])
            else:
                paths.append([])
        return Verdict(paths, [-1] * round.rows, finished=[not path for path in paths])

    def _likeness(self, round: Round, row: int, candidates: np.ndarray) -> np.ndarray:
        """The largest cosine of each candidate's state with the state of an earlier token."""
        hidden = round.answers["target"].hidden
        past = unit(round.sessions["target"].states(row))
        own = unit(hidden[row, 1 + torch.from_numpy(candidates)])  # type: ignore[index]
        return (own @ past.T).amax(dim=1).cpu().numpy()


def likeliest(logits: np.ndarray, count: int) -> np.ndarray:
    """The ids of the `count` largest logits, the lower id first on a tie; ABSENT for what is forbidden."""
    least = np.partition(logits, -count)[-count]
    near = np.flatnonzero(logits >= least)
    chosen = near[np.argsort(-logits[near], kind="stable")][:count]
    return np.where(logits[chosen] > -np.inf, chosen, ABSENT)


def unit(states: torch.Tensor) -> torch.Tensor:
    """States [T, H] at length 1, in float32 or better."""
    precise = states if states.dtype == torch.float64 else states.float()
    return torch.nn.functional.normalize(precise, dim=-1)


def parts(config: Config) -> Parts:
    search = ContrastiveSearch(config)
    return Parts(
        propose=search, verify=search, claims=config.k + 1, hidden=True, bonus=False, whole_laws=True, greedy=True,
        fits=(within_vocabulary("k", config.k),),
    )  # fmt: skip
