"""Entropy adaptive decoding: a small model writes while the text is easy, the large one where its law is spread out.

Simonds 2025, "Entropy Adaptive Decoding: Dynamic Model Switching for Efficient Inference" (https://arxiv.org/abs/2502.06833).
Whoever writes has the entropy H = -sum p log2 p of its next-token law taken at each token. Once `least` tokens were written
since the last switch, the mean of the last `window` entropies decides who writes the next one: above `threshold` the target,
else the model of the role "small". Nothing is verified.

Cost: one call of either model for each token; a model that takes over first reads the tokens it missed, within that call. In a
batch a round calls each model that some row needs, over all rows. Whose answers gave a row its tokens stands in the trace
(`Step.model`), so shares are counted there; `model_calls` and a budget of them count the target's alone.

The paper's cost, in parameters read, is the sum over both models of share * parameters, and what the model that takes over reads
to catch up. In the trace of a prompt decoded alone, `Step.model` of each step says who wrote, so its steps over all steps are
the share of a model. `Call.columns` of `Trace.calls`, summed over a model's calls of every kind, are the tokens that it read:
prompt, catching up and its own writing. A run of few missed tokens is read by the "score" call of the next token, a longer one
by a "prefill" call. So sum(parameters[step.model]) over the steps is the cost without catching up, and
sum(parameters[call.model] * call.columns) over the calls that with it, where a token read is what costs.

Not lossless. Threshold "-inf" is the target's text and "inf" the small model's, token for token as plain decoding gives them.

Beside the paper: entropies of two models are on different scales, so the window begins anew at a switch and never mixes them.
Entropy is that of the raw logits, before steering, constraints, penalties and temperature. The target begins, for it is the safe
one, but for threshold "inf". The paper's own window, threshold and least run are not known to us: tune the threshold for a pair.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from treewright.core.errors import require
from treewright.core.roles import Outcome, Parts, Round, Turn
from treewright.parts.verify.sample_then_match import SampleThenMatch

CARD = {
    "title": "Entropy Adaptive Decoding: Dynamic Model Switching for Efficient Inference",
    "year": 2025,
    "link": "https://arxiv.org/abs/2502.06833",
    "card": 15,
    "aliases": ["entropy adaptive decoding"],
    "roles": ["drive", "verify", "observe"],
    "models": ["small"],
    "needs": ["left_to_right"],
    "claims": ["row_independent", "lossless_at_limit"],
    "limit": {"threshold": "-inf"},
}

TARGET, SMALL = "target", "small"


@dataclass(frozen=True)
class Config:
    """
    threshold: mean entropy in bits above which the target writes (tau); "-inf" for always, "inf" for never
    window: entropies that are averaged (w)
    least: tokens that a model writes before the next switch (d_min)
    """

    threshold: float | Literal["-inf", "inf"] = 1.0
    window: int = 5
    least: int = 10

    def __post_init__(self) -> None:
        require(self.window >= 1, "window", self.window, "an integer >= 1")
        require(self.least >= 1, "least", self.least, "an integer >= 1")


@dataclass(slots=True)
class EntropyWindow:
    """Who writes a row, and the entropies of what it wrote since it took over, at most the window's last ones."""

    model: str
    since: int = 0
    entropies: list[float] = field(default_factory=list)

    def note(self, entropy: float, threshold: float, window: int, least: int) -> None:
        """Counts a token that was drawn from a law of this entropy, and decides who writes the next."""
        self.since += 1
        self.entropies = [*self.entropies, entropy][-window:]
        if self.since < least:
            return
        wanted = TARGET if math.fsum(self.entropies) / len(self.entropies) > threshold else SMALL
        if wanted != self.model:
            self.model, self.since, self.entropies = wanted, 0, []


def entropy_bits(logits: np.ndarray) -> float:
    """The entropy of softmax(logits [V]) in bits."""
    shifted = logits.astype(np.float64) - logits.max()
    weights = np.exp(shifted)
    total = weights.sum()
    return float((np.log(total) - (weights[weights > 0] * shifted[weights > 0]).sum() / total) / np.log(2))


class ModelSwitch:
    """Driver that says who writes, and the observer it learns that from. The state belongs to a row, so forks copy it."""

    prompt_top = 0

    def __init__(self, config: Config) -> None:
        self._config, self._threshold = config, float(config.threshold)

    def turns(self, round: Round) -> Sequence[Turn]:
        return [Turn(self._window_of(round, row).model) for row in range(round.rows)]

    def _window_of(self, round: Round, row: int) -> EntropyWindow:
        first = SMALL if self._threshold == math.inf else TARGET
        return round.memories.row(round.keys[row], "entropy window", lambda: EntropyWindow(first))

    def read_prompts(self, round: Round, prompts: Sequence[Sequence[int]], top: np.ndarray) -> None:
        """Prompts say nothing here."""

    def observe(self, outcome: Outcome) -> None:
        round, config = outcome.round, self._config
        for row, emitted in enumerate(outcome.emitted):
            if emitted:
                entropy = entropy_bits(round.answers["target"].row(row, 0))
                self._window_of(round, row).note(entropy, self._threshold, config.window, config.least)


def parts(config: Config) -> Parts:
    switch = ModelSwitch(config)
    return Parts(drive=switch, verify=SampleThenMatch(), observe=(switch,), writers=(SMALL,))
