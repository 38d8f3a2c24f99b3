"""SpecDec++: drafting stops once it is likely enough that one of the drafted tokens will be refused.

Huang et al. 2024, "SpecDec++: Boosting Speculative Decoding via Adaptive Candidate Lengths"
(https://arxiv.org/abs/2405.19715). "One more draft, or the target's check" is a Markov decision whose best policy is a threshold
on the probability that some draft so far is refused. A small head on the draft model's hidden state says how likely each token
is to be accepted, a_i; the draft ends when 1 - a_1 ... a_k > `threshold`, with `least` to `most` tokens. It controls whatever
drafts a chain, token by token: `speculative_sampling+specdec_pp`, with `speculative_sampling.tokens=20`, since the shorter of
both ends the draft.

`head=none`, the default, needs no training: a_i is the drafter's own probability of the token, set right by how often drafts
of such a probability were accepted (`calibrate`). A head is trained for a pair with `treewright train specdec_pp`; the
one that comes along, `default-acceptance`, is for `default` and `default-draft`.

Cost: no target call; a head costs four small matrix products for each draft. Lossless: the token at which drafting stops is
kept.

The head can rate a token once the draft model has read it, which happens when the next one is drafted. `lag=False`, the default,
has the draft model read the newest token first, as the theory has it; that reading is the next draft's anyway, and
costs a call of the draft only where drafting stops. The released code decides by all tokens but the newest, and so does
`lag=True`: the first draft is always followed by a second. Without a head nothing lags: the drafter's probability of a
token is known before it is read. Training weighs refusals six times, as in the paper, so that a head's a_i is lower than the
true probability a: it is a / (a + 6 (1 - a)).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch

from treewright.core.answers import Answers
from treewright.core.errors import CapabilityError, CompositionError, require
from treewright.core.roles import Outcome, Parts, Round
from treewright.parts.control.drafted import Notes, read_draft
from treewright.parts.heads.acceptance_file import AcceptanceFile, open_acceptance
from treewright.parts.heads.acceptance_head import AcceptanceHead

CARD = {
    "title": "SpecDec++: Boosting Speculative Decoding via Adaptive Candidate Lengths",
    "year": 2024,
    "link": "https://arxiv.org/abs/2405.19715",
    "card": 235,
    "aliases": ["specdecpp", "adaptive candidate lengths"],
    "roles": ["control", "observe"],
    "models": [],
    "needs": ["left_to_right"],
    "claims": ["lossless"],
}

BINS = 10
PRIOR = 4.0
"""Judged drafts that the drafter's own word weighs as much as, in each bin of probabilities."""


@dataclass(frozen=True)
class Config:
    """
    head: a bundled name, a folder or a file of an acceptance head, or "none" for the drafter's own probabilities
    threshold: drafting stops when a refusal is more likely than this (h)
    least: the shortest draft
    most: the longest draft
    lag: with a head, decide before the newest token was read, as the released code does
    calibrate: without a head, set the drafter's probabilities right by what was accepted
    """

    head: str = "none"
    threshold: float = 0.3
    least: int = 2
    most: int = 20
    lag: bool = False
    calibrate: bool = True

    def __post_init__(self) -> None:
        require(bool(self.head), "head", "''", 'a bundled name, a folder, a file, or "none"')
        require(0 <= self.threshold <= 1, "threshold", self.threshold, "a number from 0 to 1")
        require(self.least >= 1, "least", self.least, "an integer >= 1")
        require(self.most >= self.least, "most", self.most, f"an integer >= least ({self.least})")


def goes_on(all_accepted: np.ndarray, drafted: int, config: Config) -> np.ndarray:
    """Which rows draft another token after `drafted`, given the probability that all so far are accepted; [R] bool."""
    doubt: np.ndarray = 1 - all_accepted
    return ((doubt <= config.threshold) | (drafted < config.least)) & (drafted < config.most)


@dataclass(slots=True)
class Calibration:
    """How many drafts of each bin of probabilities were judged, and how many of them accepted."""

    judged: np.ndarray = field(default_factory=lambda: np.zeros(BINS))
    accepted: np.ndarray = field(default_factory=lambda: np.zeros(BINS))

    def add(self, probability: float, accepted: bool) -> None:
        place = _bin(np.array(probability))
        self.judged[place] += 1
        self.accepted[place] += accepted

    def __call__(self, probability: np.ndarray) -> np.ndarray:
        """The share accepted among drafts of a like probability, where the probability itself counts as PRIOR drafts."""
        place = _bin(probability)
        return (self.accepted[place] + PRIOR * probability) / (self.judged[place] + PRIOR)


def _bin(probability: np.ndarray) -> np.ndarray:
    return np.minimum((probability * BINS).astype(np.int64), BINS - 1)


class SpecDecPP:
    """Controller and observer around the running product of acceptances."""

    prompt_top = 0

    def __init__(self, config: Config) -> None:
        self._config = config
        self._file: AcceptanceFile | None = None if config.head == "none" else open_acceptance(config.head)
        self._notes = Notes()
        self._all_accepted = np.ones(0)

    def calibration(self, round: Round) -> Calibration:
        """What was learned of drafts at the request's temperature."""
        return round.memories.model(("specdec_pp", round.request.sampling.temperature), Calibration)

    def claims(self, round: Round) -> int:
        self._notes.begin()
        return 1 + self._config.most

    def more(self, round: Round, answers: Answers, parent: int, column: int) -> np.ndarray:
        place = self._notes.place
        if place == 1:
            self._all_accepted = np.ones(round.rows)
        sure, _ = read_draft(answers, parent, round.forest.token[:, column])
        self._notes.add(column, sure[:, None])
        self._all_accepted = self._all_accepted * self._acceptance(round, answers, parent, column, sure)
        return goes_on(self._all_accepted, place, self._config)

    def _acceptance(self, round: Round, answers: Answers, parent: int, column: int, sure: np.ndarray) -> np.ndarray:
        """What the product grows by: the acceptance of the newest token, or of the one before it."""
        if self._file is None:
            return self.calibration(round)(sure) if self._config.calibrate else sure
        if self._config.lag:
            return np.ones(round.rows) if parent == 0 else self._rated(round, self._file, answers, parent)
        if "draft" not in round.sessions:
            raise CompositionError(
                "specdec_pp.lag is False, so a draft model must read the newest token, and this recipe's drafter has none; "
                "set specdec_pp.lag to True"
            )
        return self._rated(round, self._file, round.sessions["draft"].score(round.forest), column)

    def _rated(self, round: Round, file: AcceptanceFile, answers: Answers, column: int) -> np.ndarray:
        """The head's word on the token of `column`, which the draft model has read."""
        if answers.hidden is None or answers.hidden.shape[-1] != file.hidden_size:
            found = "keeps no hidden states" if answers.hidden is None else f"has hidden size {answers.hidden.shape[-1]}"
            raise CapabilityError(
                f"head '{self._config.head}' reads states of size {file.hidden_size} and this recipe's drafter {found}; train "
                "one for your pair with `treewright train specdec_pp --model TARGET --draft DRAFT`, or leave head at none"
            )
        states = answers.hidden[:, column]
        key = ("specdec_pp", self._config.head, file.version, states.dtype, str(states.device))
        head: AcceptanceHead = round.memories.loaded(key, lambda: file.load(states.device, states.dtype))
        with torch.inference_mode():
            rated: np.ndarray = head.acceptance(states).cpu().numpy()
        return rated

    def read_prompts(self, round: Round, prompts: object, top: np.ndarray) -> None:
        """Prompts hold no drafts."""

    def observe(self, outcome: Outcome) -> None:
        self._notes.check_chain(outcome, "specdec_pp")
        if self._file is None and self._config.calibrate:
            known = self.calibration(outcome.round)
            for draft in self._notes.judged(outcome):
                known.add(float(draft.values[0]), draft.accepted)


def parts(config: Config) -> Parts:
    control = SpecDecPP(config)
    return Parts(control=control, observe=(control,), hidden=config.head != "none", asked=True)
