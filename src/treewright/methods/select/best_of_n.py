"""Best-of-n: n samples of each prompt, of which a reward, or the model's own likelihood, chooses.

Stiennon et al. 2020, "Learning to summarize from human feedback" (https://arxiv.org/abs/2009.01325) rank samples of a policy by
a learned reward at inference (its best-of-n policy). With n candidates of continuous reward the chosen text differs from the
policy's by at most log n - (n - 1)/n nats of Kullback-Leibler divergence.

Cost: the target calls of n samples, decoded as rows of a batch, and n judgements. Any drafter, steering and constraint goes
with it: the candidates are samples of whatever the recipe decodes.

Beside the paper: without a reward `by` = likelihood takes the candidate that the target itself finds most probable, in all or
per token, at temperature 1 and without steering, constraint and warpers. Cut-off candidates (a spent budget, a dead end) are
judged but come after all finished ones. Equal scores go to the lowest sample. The n here is the option `candidates`, since n in a
request is how many of them, the best first, are wanted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from treewright.core.errors import require
from treewright.core.roles import Parts
from treewright.core.selection import Candidate, Scorer
from treewright.parts.select.ranking import AllEnd, ranked

CARD = {
    "title": "Learning to summarize from human feedback",
    "year": 2020,
    "link": "https://arxiv.org/abs/2009.01325",
    "card": None,
    "aliases": ["BoN", "rejection sampling by reward", "reranking"],
    "roles": ["select"],
    "models": [],
    "scorers": {"reward": {"by": "reward"}},
    "needs": ["left_to_right"],
    "claims": ["selects"],
}


@dataclass(frozen=True)
class Config:
    """
    candidates: samples of each prompt that are chosen among
    by: what judges them: the role "reward", or the target's own log-probability
    per_token: the likelihood is the mean over a candidate's tokens, not the sum, which favours short ones
    """

    candidates: int = 8
    by: Literal["reward", "likelihood"] = "reward"
    per_token: bool = True

    def __post_init__(self) -> None:
        require(self.candidates >= 1, "candidates", self.candidates, "an integer >= 1")


class BestOfN(AllEnd):
    """Selector by one number for each candidate."""

    def __init__(self, config: Config) -> None:
        self._config = config

    def select(self, prompt: str, candidates: Sequence[Candidate], scorers: Mapping[str, Scorer]) -> list[int]:
        if self._config.by == "reward":
            return ranked(candidates, scorers["reward"].score(prompt, [one.text for one in candidates]))
        tokens = [max(1, len(one.tokens)) if self._config.per_token else 1 for one in candidates]
        return ranked(candidates, [one.logprob / count for one, count in zip(candidates, tokens, strict=True)])


def parts(config: Config) -> Parts:
    likelihood = config.by == "likelihood"
    return Parts(select=BestOfN(config), candidates=config.candidates, logprobs=likelihood, texts=not likelihood)
