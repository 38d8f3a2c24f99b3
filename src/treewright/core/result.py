"""What comes back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from treewright.core.trace import Trace

FinishReason = Literal["stop", "length", "budget", "cancelled", "dead_end"]


@dataclass(slots=True)
class Sample:
    """One continuation. `tokens` are the new token ids (an end-of-text id included, if it was drawn); `text` is what
    they spell, special tokens left out, cut before a stop string; `logprobs` are natural logarithms under the model's
    own softmax at temperature 1, one for each token, or None where they were not asked for."""

    text: str
    tokens: list[int]
    finish_reason: FinishReason
    logprobs: list[float] | None = None
    log_weight: float = 0.0


@dataclass(slots=True)
class Result(Sample):
    """The answer to one prompt: the first sample's fields, all `samples`, and the `trace` of how they were decoded.

    log_evidence: of weighted methods, the logarithm of the mean weight of all continuations that were decoded: an unbiased
    estimate of the mass of what the request allows (of texts, or of their beginnings where the length cut them off). None of
    others."""

    samples: list[Sample] = field(default_factory=list)
    trace: Trace = field(default_factory=Trace)
    log_evidence: float | None = None

    @property
    def tokens_per_call(self) -> float:
        """New tokens of all samples for each forward of the target (`trace.model_calls`) that the rows of the prompt took part
        in, rows that were not chosen included. Of one sample that nothing chose it is that row's `trace.tokens_per_call`, but
        for forwards that only move a model's memory on."""
        return sum(len(sample.tokens) for sample in self.samples) / max(1, self.trace.model_calls)
