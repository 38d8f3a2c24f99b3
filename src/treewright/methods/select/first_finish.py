"""First finish search: start several samples, return the one that ends first, stop the others.

Agarwal et al. 2025, "First Finish Search: Efficient Test-Time Scaling in Large Language Models"
(https://arxiv.org/abs/2505.18149). Reasoning models that are right tend to be brief, so the shortest of n samples is a better
bet than any one of them, and costs no more steps than it. FFS-k@N waits for k ends and takes the majority of their answers:
k = 1 is first finish, k = N self-consistency.

Cost: target calls until the k-th end, over rows that are given up as soon as they cannot be among the first k.

Beside the paper: first means fewest tokens, not least time, so that drafting, batches and queues change nothing: a row that has
more tokens than the k-th end is given up, one that has fewer goes on. Equal lengths go to the lowest sample. Only a text that
ended by itself (an end of text, a stop) has finished; where none did, those that reached the length asked for come first, then
cut-off ones, the longest first. The majority's text is the shortest that has its answer; candidates without an answer do not
vote. A follow-up study by the same group finds that on hard problems some models are right more often at length.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from treewright.core.errors import require
from treewright.core.roles import Parts
from treewright.core.selection import Candidate, Scorer
from treewright.parts.select.votes import LAST_NUMBER, answer_of, compiled, elect

CARD = {
    "title": "First Finish Search: Efficient Test-Time Scaling in Large Language Models",
    "year": 2025,
    "link": "https://arxiv.org/abs/2505.18149",
    "card": 157,
    "aliases": ["FFS", "first finish search"],
    "roles": ["select"],
    "models": [],
    "needs": ["left_to_right"],
    "claims": ["selects"],
}


@dataclass(frozen=True)
class Config:
    """
    candidates: samples of each prompt that start
    k: ends to wait for; above 1 the majority of their answers decides
    answer: regular expression of an answer, as in self_consistency; by default the last number
    """

    candidates: int = 4
    k: int = 1
    answer: str | None = None

    def __post_init__(self) -> None:
        require(self.candidates >= 1, "candidates", self.candidates, "an integer >= 1")
        require(1 <= self.k <= self.candidates, "k", self.k, f"an integer from 1 to candidates ({self.candidates})")
        if self.answer is not None:
            compiled("answer", self.answer)


def _order(one: Candidate) -> tuple[int, ...]:
    """Ended by itself, the shortest first; then of the length asked for; then cut off, the longest first."""
    stopped = one.finish_reason == "stop"
    return (not stopped, not one.finished, len(one.tokens) if stopped else -len(one.tokens), one.sample)


class FirstFinish:
    """Selector by length, and by vote among the shortest."""

    hypotheses = False

    def __init__(self, config: Config) -> None:
        self._k = config.k
        self._pattern = compiled("answer", LAST_NUMBER if config.answer is None else config.answer)

    def enough(self, ended: Sequence[Candidate], running: int) -> bool:
        return sum(one.finish_reason == "stop" for one in ended) >= self._k

    def select(self, prompt: str, candidates: Sequence[Candidate], scorers: Mapping[str, Scorer]) -> list[int]:
        order = sorted(range(len(candidates)), key=lambda index: _order(candidates[index]))
        if self._k == 1:
            return order
        first = [candidates[index] for index in order[: self._k]]
        answers = [answer_of(self._pattern, one.text) for one in first]
        voters = [index for index, one in enumerate(first) if answers[index] is not None and one.finish_reason == "stop"]
        brevity = [-float(place) for place in range(len(first))]
        elected = elect(first, answers, dict.fromkeys(voters, 1.0), brevity)
        return [order[index] for index in elected] + order[self._k :]


def parts(config: Config) -> Parts:
    return Parts(select=FirstFinish(config), candidates=config.candidates, texts=config.k > 1)
