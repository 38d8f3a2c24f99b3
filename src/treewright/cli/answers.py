"""A result as JSON, the same on standard output and in a line of a file."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from treewright.core.result import Result, Sample

FIELDS = (
    "text", "tokens", "finish_reason", "log_weight", "logprobs", "log_evidence", "model_calls", "tokens_per_call", "samples",
    "selection",
)  # fmt: skip
"""Every name that `answer` may write."""


def answer(result: Result) -> dict[str, Any]:
    """The first sample's fields, the account, `samples` where there are several, and how they were selected. `logprobs` and
    `log_evidence` stand where the result has them; the logarithm of nothing, which JSON cannot write, is null."""
    record = sample(result) | {
        "model_calls": result.trace.model_calls, "tokens_per_call": round(result.tokens_per_call, 4),
    }  # fmt: skip
    if result.log_evidence is not None:
        record["log_evidence"] = _finite(result.log_evidence)
    if len(result.samples) > 1:
        record["samples"] = [sample(one) for one in result.samples]
    return record | result.trace.notes


def sample(one: Sample) -> dict[str, Any]:
    """One continuation."""
    record = {
        "text": one.text, "tokens": one.tokens, "finish_reason": one.finish_reason, "log_weight": _finite(one.log_weight),
    }  # fmt: skip
    return record if one.logprobs is None else record | {"logprobs": [_finite(value) for value in one.logprobs]}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
