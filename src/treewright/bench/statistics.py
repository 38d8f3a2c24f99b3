"""The arithmetic of the benchmark: repetition of a text, ratios of costs, their bootstrap intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

GRAM = 4
RESAMPLES = 2000
CONFIDENCE = 0.95


def repetition(tokens: Sequence[int], gram: int = GRAM) -> float:
    """The share of the `gram`-grams of `tokens` that stood in the text before: 1 - distinct / all, in [0, 1).

    0 for a text without a repeated gram (or shorter than one); a loop of one token of length L gives 1 - 1 / (L - 3).
    """
    grams = [tuple(tokens[start : start + gram]) for start in range(len(tokens) - gram + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


@dataclass(frozen=True, slots=True)
class Cost:
    """What one unit (a prompt, or a batch of them) took and brought: wall seconds, new tokens of all its rows."""

    seconds: float
    tokens: int


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure and its 95 % bootstrap interval; `low` and `high` are None where there is one unit only."""

    value: float
    low: float | None
    high: float | None


def seconds_per_token(costs: Sequence[Cost]) -> float:
    """Seconds of all units over tokens of all units."""
    return sum(cost.seconds for cost in costs) / max(1, sum(cost.tokens for cost in costs))


def speed_ratio(reference: Sequence[Cost], subject: Sequence[Cost], seed: int = 0) -> Interval:
    """How many times as fast `subject` is as `reference` over the same units, in tokens per second.

    The ratio of the totals, so that long units weigh more, as they do for a user. The interval is the percentile
    bootstrap over units, the same resample for both sides, because both decoded the same prompts. Raises ValueError when
    the units differ in number.
    """
    if len(reference) != len(subject) or not subject:
        raise ValueError(f"{len(reference)} and {len(subject)} units cannot be compared; both sides need the same units")
    value = seconds_per_token(reference) / seconds_per_token(subject)
    if len(subject) == 1:
        return Interval(value, None, None)
    drawn = np.random.default_rng(seed).integers(0, len(subject), size=(RESAMPLES, len(subject)))
    ratios = _per_token(reference, drawn) / _per_token(subject, drawn)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(ratios, [tail, 1 - tail])
    return Interval(value, float(low), float(high))


def _per_token(costs: Sequence[Cost], drawn: np.ndarray) -> np.ndarray:
    """Seconds per token of each resample, [RESAMPLES]."""
    seconds = np.array([cost.seconds for cost in costs])[drawn].sum(1)
    tokens = np.array([cost.tokens for cost in costs], np.float64)[drawn].sum(1)
    return seconds / np.maximum(tokens, 1)
