"""Choosing among whole continuations: what a candidate is, what judges texts, what ranks them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from treewright.core.result import FinishReason


@dataclass(frozen=True, slots=True)
class Candidate:
    """An ended continuation of prompt number `prompt`, as selection sees it: `sample` in the order of the slots, completions
    after them. slot: where it ended, or the slot that a completion left. logprob: the sum of the target's own
    log-probabilities of its tokens, where the part asked for them, else 0."""

    sample: int
    tokens: list[int]
    text: str
    finish_reason: FinishReason
    log_weight: float = 0.0
    logprob: float = 0.0
    slot: int = 0
    prompt: int = 0

    @property
    def finished(self) -> bool:
        """Whether the continuation is whole: the model or a stop ended it, or it has all the tokens that were asked for. What a
        spent budget, a cancellation or a dead end cut off is not, and is chosen only where nothing else is there."""
        return self.finish_reason in ("stop", "length")


class Scorer(Protocol):
    """Judges texts: a reward model, a verifier, a function of the user's."""

    def score(self, prompt: str, texts: Sequence[str]) -> Sequence[float]:
        """One number for each continuation, larger is better."""


class Selector(Protocol):
    """Chooses among the ended continuations of one prompt. Costs no call of the target. hypotheses: what it ranks are the
    answers of one search, whose rows no user asked for, not continuations that rows were decoded for."""

    hypotheses: bool

    def enough(self, ended: Sequence[Candidate], running: int) -> bool:
        """Asked about each row that goes on: True gives it up, and it is no candidate. Time is counted in tokens: `ended` are the
        continuations with no more tokens than the row has, and all completions; `running` are the others, the row itself
        included. So drafts, batching and waiting decide nothing, and where every row gains one token a round this is asked when
        something ends. As many as the user wants are there already. The candidates' texts are empty here."""

    def select(self, prompt: str, candidates: Sequence[Candidate], scorers: Mapping[str, Scorer]) -> list[int]:
        """Indices of candidates, the best first; those that are left out are not returned to the user. At least one."""
