"""Weights of particles, kept as logarithms."""

from __future__ import annotations

import numpy as np


def log_mean(log_weights: np.ndarray) -> float:
    """The logarithm of the mean weight of log_weights [N]; -inf where all weights are zero."""
    largest = float(log_weights.max())
    return largest if largest == -np.inf else largest + float(np.log(np.exp(log_weights - largest).mean()))


def relative(log_weights: np.ndarray) -> np.ndarray:
    """The weights as multiples of the largest [N]; all zero where all weights are."""
    largest = float(log_weights.max())
    return np.zeros(len(log_weights)) if largest == -np.inf else np.exp(log_weights - largest)


def effective_number(log_weights: np.ndarray) -> float:
    """How many equal weights would be worth as much as these (Kong 1992): between 1 and N, and 0 where all are zero."""
    weights = relative(log_weights)
    total = float((weights**2).sum())
    return float(weights.sum()) ** 2 / total if total else 0.0


def settled(sources: list[int]) -> list[int]:
    """The same sources, arranged so that every place that is a source continues itself: fewest copies."""
    spare, settled = list(sources), [-1] * len(sources)
    for place in sorted(set(sources)):
        settled[place] = place
        spare.remove(place)
    return [source if source >= 0 else spare.pop(0) for source in settled]
