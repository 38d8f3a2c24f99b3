"""Self-consistency: sample many lines of reasoning, read the answer of each, and take the answer that most of them reach.

Wang et al. 2023, "Self-Consistency Improves Chain of Thought Reasoning in Language Models" (https://arxiv.org/abs/2203.11171).
Answers are found by a regular expression; each candidate votes with weight one, with its probability under the model, or with its
probability per token (the paper finds the unweighted vote and the last of these alike, and the raw probability worse).

Cost: the target calls of all candidates, decoded as rows of a batch; the vote costs none.

Beside the paper: the returned text is the candidate of the winning answer that the model finds most probable. As many votes:
the answer reached by the lowest sample. A text without an answer does not vote, nor does a cut-off one (a spent budget, a dead
end) unless none is finished; where there is no vote at all, the most probable finished candidate is returned. Numbers
are compared by value, other answers without case. In a weighted vote a token sequence that was drawn twice counts once, so that
over all texts together the votes are the answers' true probabilities; the paper adds it twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from treewright.core.errors import require
from treewright.core.roles import Parts
from treewright.core.selection import Candidate, Scorer
from treewright.parts.select.ranking import AllEnd, probability_weights
from treewright.parts.select.votes import LAST_NUMBER, answer_of, compiled, elect

CARD = {
    "title": "Self-Consistency Improves Chain of Thought Reasoning in Language Models",
    "year": 2023,
    "link": "https://arxiv.org/abs/2203.11171",
    "card": None,
    "aliases": ["majority voting", "maj@n", "SC"],
    "roles": ["select"],
    "models": [],
    "needs": ["left_to_right"],
    "claims": ["selects"],
    "tables": {"candidates": 4},
}


@dataclass(frozen=True)
class Config:
    """
    candidates: samples of each prompt that vote; 40 in the paper
    answer: regular expression whose last match is the answer, or its group where it has one; by default the last number
    weights: what a vote weighs: one each, the candidate's probability, or its probability per token
    """

    candidates: int = 40
    answer: str | None = None
    weights: Literal["uniform", "probability", "probability_per_token"] = "uniform"

    def __post_init__(self) -> None:
        require(self.candidates >= 1, "candidates", self.candidates, "an integer >= 1")
        if self.answer is not None:
            compiled("answer", self.answer)


class SelfConsistency(AllEnd):
    """Selector by vote."""

    def __init__(self, config: Config) -> None:
        self._weights = config.weights
        self._pattern = compiled("answer", LAST_NUMBER if config.answer is None else config.answer)

    def select(self, prompt: str, candidates: Sequence[Candidate], scorers: Mapping[str, Scorer]) -> list[int]:
        answers = [answer_of(self._pattern, one.text) for one in candidates]
        # Where something has finished, what was cut off has no vote, even if nothing that finished holds an answer.
        cut = not any(one.finished for one in candidates)
        voters = [index for index, answer in enumerate(answers) if answer is not None and (cut or candidates[index].finished)]
        weighted: Mapping[int, float] = dict.fromkeys(voters, 1.0)
        if voters and self._weights != "uniform":
            weighted = probability_weights(candidates, voters, self._weights == "probability_per_token")
        return elect(candidates, answers, weighted, [one.logprob for one in candidates])


def parts(config: Config) -> Parts:
    return Parts(select=SelfConsistency(config), candidates=config.candidates, logprobs=True, texts=True)
