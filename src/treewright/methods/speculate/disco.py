"""DISCO: after each drafted token, a guess whether it will be accepted says to draft on or to let the target check.

Mamou et al. 2024, "Dynamic Speculation Lookahead Accelerates Speculative Decoding of Large Language Models"
(https://arxiv.org/abs/2405.04304). It controls whatever drafts a chain, token by token (`speculative_sampling+disco`): the
best length differs from round to round, and a draft that is unsure of its last token is rarely right about the next one.
Rules of `rule`:

- `classifier`, the paper's: a small network reads the drafter's probability of the token, the entropy of its law and the place
  in the draft, and drafting goes on while it says at least `threshold`. It is trained on drafts that the target judged.
- `threshold`, what transformers ships as dynamic speculation: go on while the drafter's own probability is at least that.
- `adaptive`, transformers' too: once more than five drafts were judged and both answers were among them, the threshold is the
  point of their ROC curve with the least (false positives' rate) + 3 (false negatives' rate).
- `heuristic`, transformers' older one: two drafts more after a round that accepted all, one less after any other.

Cost: no model call of its own; it saves draft calls. Lossless: the token at which drafting stops is kept, so whether a claim
exists never depends on its own identity; dropping it is biased (tested).
`threshold=0` drafts as many as the drafter would. Give the drafter as many tokens as this method may use
(`speculative_sampling.tokens=20`): the shorter of both ends the draft.

Beside the paper: it trains its classifier before decoding, on another data set. No trained one comes along, so the default is
the released `threshold`, which needs none; here `classifier` learns as it goes (which cost more than `threshold` where it was
measured, `docs/log.md`) and is kept with the model, and `learn=False` freezes what earlier runs taught it, which is the paper's
way. Size and training of its network are our choice. Until a draft was refused, `classifier` is `threshold`; from drafts that
were all refused it learns to draft one token, and begins anew with the first that is accepted. `adaptive`, as released, learns
nothing from those: a drafter that is sure and always wrong keeps drafting `most` tokens, and so does one that is no surer when it
is right. Released code reads probabilities after temperature and warpers; here they are the drafter's own at every temperature,
so that a threshold means the same. The adaptive history is a window of the last `window` drafts, where the released one never
forgets, and `heuristic` counts for each row. The rows of a batch share the rest, which may change how much is drafted and never
the law.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from treewright.core.answers import Answers
from treewright.core.errors import require
from treewright.core.roles import Outcome, Parts, Round
from treewright.parts.control.classifier import Classifier
from treewright.parts.control.drafted import Notes, read_draft

CARD = {
    "title": "Dynamic Speculation Lookahead Accelerates Speculative Decoding of Large Language Models",
    "year": 2024,
    "link": "https://arxiv.org/abs/2405.04304",
    "card": 199,
    "aliases": ["dynamic speculation lookahead", "dynamic speculation length", "assistant confidence threshold"],
    "roles": ["control", "observe"],
    "models": [],
    "needs": ["left_to_right"],
    "claims": ["lossless"],
}

LEAST_SAMPLES = 6
UNITS, FIRST_STEPS, STEPS = 8, 200, 25
"""The classifier's hidden units, and the steps of its first and of each later fit."""


@dataclass(frozen=True)
class Config:
    """
    rule: what a draft must pass for another one to follow; the paper's `classifier` is not the default, for it wants training
    threshold: probability of acceptance, or of the token, below which drafting stops; `adaptive` begins with it
    most: the longest draft
    tokens: heuristic: the length of a row's first draft
    window: adaptive and classifier: judged drafts that are remembered
    every: classifier: judged drafts between two fits
    learn: adaptive and classifier: learn from this run too
    """

    rule: Literal["threshold", "adaptive", "classifier", "heuristic"] = "threshold"
    threshold: float = 0.4
    most: int = 20
    tokens: int = 5
    window: int = 1000
    every: int = 50
    learn: bool = True

    def __post_init__(self) -> None:
        require(0 <= self.threshold <= 1, "threshold", self.threshold, "a number from 0 to 1")
        for name in ("most", "tokens", "every"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "an integer >= 1")
        require(self.window >= LEAST_SAMPLES, "window", self.window, f"an integer >= {LEAST_SAMPLES}")


@dataclass(slots=True)
class Learned:
    """Judged drafts, the oldest first: features [n][F] (probability, entropy, place) and whether they were accepted; and what
    was made of them."""

    features: list[np.ndarray] = field(default_factory=list)
    accepted: list[bool] = field(default_factory=list)
    threshold: float | None = None
    classifier: Classifier | None = None
    unread: int = 0
    both: bool = False

    @property
    def ready(self) -> bool:
        """Whether something is known against going on."""
        return len(self.accepted) >= LEAST_SAMPLES and not all(self.accepted)


@dataclass(slots=True)
class Length:
    """How much a row drafts under the heuristic."""

    tokens: int


def roc_threshold(scores: np.ndarray, accepted: np.ndarray) -> float:
    """The score that, as the least one to go on at, has the smallest FPR + 3 FNR over samples of both kinds; the largest
    such score. scores [n], accepted [n] bool. Cost: one sorting."""
    order = np.argsort(-scores, kind="stable")
    falling, right = scores[order], accepted[order]
    false_positives, true_positives = np.cumsum(~right) / (~right).sum(), np.cumsum(right) / right.sum()
    # A threshold above all scores, where ROC curves begin, costs 3, and the smallest score costs 1: it is never the best.
    ends = np.flatnonzero(np.append(falling[1:] != falling[:-1], True))
    costs = false_positives[ends] + 3 * (1 - true_positives[ends])
    return float(falling[ends[costs.argmin()]])


class Disco:
    """Controller and observer around what was learned."""

    prompt_top = 0

    def __init__(self, config: Config) -> None:
        self._config = config
        self._notes = Notes()

    def learned(self, round: Round) -> Learned:
        """What this rule has learned on the model at the request's temperature."""
        return round.memories.model(("disco", self._config.rule, round.request.sampling.temperature), Learned)

    def claims(self, round: Round) -> int:
        self._notes.begin()
        config = self._config
        if config.rule == "heuristic":
            return 1 + min(config.most, max(self._length(round, row).tokens for row in range(round.rows)))
        return 1 + config.most

    def _length(self, round: Round, row: int) -> Length:
        return round.memories.row(round.keys[row], "disco", lambda: Length(self._config.tokens))

    def more(self, round: Round, answers: Answers, parent: int, column: int) -> np.ndarray:
        sure, entropy = read_draft(answers, parent, round.forest.token[:, column])
        place = self._notes.place
        features = np.stack([sure, entropy, np.full(round.rows, float(place))], axis=-1)
        self._notes.add(column, features)
        if self._config.rule == "heuristic":
            return np.array([place < self._length(round, row).tokens for row in range(round.rows)])
        learned = self.learned(round)
        if self._config.rule == "classifier" and learned.classifier is not None:
            return learned.classifier(features) >= self._config.threshold
        adapted = learned.threshold if self._config.rule == "adaptive" else None
        return sure >= (self._config.threshold if adapted is None else adapted)

    def read_prompts(self, round: Round, prompts: object, top: np.ndarray) -> None:
        """Prompts hold no drafts."""

    def observe(self, outcome: Outcome) -> None:
        self._notes.check_chain(outcome, "disco")
        judged = self._notes.judged(outcome)
        if self._config.rule == "heuristic":
            refused = {draft.row for draft in judged if not draft.accepted}
            for row in {draft.row for draft in judged}:
                length = self._length(outcome.round, row)
                length.tokens = max(1, length.tokens - 1) if row in refused else min(self._config.most, length.tokens + 2)
        elif self._config.rule != "threshold" and self._config.learn and judged:
            learned = self.learned(outcome.round)
            learned.features = [*learned.features, *(draft.values for draft in judged)][-self._config.window :]
            learned.accepted = [*learned.accepted, *(draft.accepted for draft in judged)][-self._config.window :]
            learned.unread += len(judged)
            if learned.ready:
                self._digest(learned)

    def _digest(self, learned: Learned) -> None:
        """Makes a threshold or a classifier of the samples, the latter once enough of them are new."""
        both = any(learned.accepted)
        if self._config.rule == "adaptive":
            if both:
                learned.threshold = roc_threshold(np.stack(learned.features)[:, 0], np.array(learned.accepted))
        elif learned.classifier is None or learned.unread >= self._config.every or both > learned.both:
            # One that had only seen refusals knows nothing that is worth going on from.
            known = learned.classifier if learned.both else None
            learned.both = both
            steps = FIRST_STEPS if known is None else STEPS
            labels = np.array(learned.accepted, float)
            learned.classifier = Classifier.fit(np.stack(learned.features), labels, UNITS, steps, known)
            learned.unread = 0


def parts(config: Config) -> Parts:
    disco = Disco(config)
    return Parts(control=disco, observe=(disco,), asked=True)
