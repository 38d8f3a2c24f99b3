"""What a round costs, learned from the rounds themselves."""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Sequence

SLOPE = 0.012
"""What a further claim is thought to cost before any is measured, as a part of a round of one."""
DOUBT = 20.0
"""Rounds that the line through all sizes is worth against a size's own median."""
REACH = 8.0
"""The expected slope counts as much as `DOUBT` rounds that lie so many claims away from the others."""
KEPT = 31


class RoundCost:
    """Seconds of a round by its number of claims, for rounds of the same number of rows. Each size has the median of its last
    rounds, which a pause of the machine does not move; a line through all of them speaks for sizes that were seldom tried."""

    def __init__(self) -> None:
        self._last: dict[int, deque[float]] = {}
        self._median: dict[int, float] = {}

    def update(self, claims: int, seconds: float) -> None:
        """One round of so many claims, frontier included, took so long."""
        last = self._last.setdefault(claims, deque(maxlen=KEPT))
        last.append(seconds)
        self._median[claims] = statistics.median(last)

    def tried(self, claims: int) -> int:
        """How many rounds of this size are remembered."""
        return len(self._last.get(claims, ()))

    def at(self, sizes: Sequence[int]) -> list[float]:
        """Expected seconds of rounds of these sizes; 1 for the first claim where nothing was measured."""
        base, slope = self._line()
        found = []
        for claims in sizes:
            line, weight = base + slope * (claims - 1), self.tried(claims)
            found.append((self._median.get(claims, 0.0) * weight + line * DOUBT) / (weight + DOUBT))
        return found

    def _line(self) -> tuple[float, float]:
        """Seconds of one claim, and of each further one: least squares through the medians, drawn to the expected slope."""
        if not self._median:
            return 1.0, SLOPE
        weights = {claims: len(last) for claims, last in self._last.items()}
        total = sum(weights.values())
        middle = sum(weight * (claims - 1) for claims, weight in weights.items()) / total
        mean = sum(weights[claims] * seconds for claims, seconds in self._median.items()) / total
        spread = sum(weight * (claims - 1 - middle) ** 2 for claims, weight in weights.items())
        rise = sum(weights[claims] * (claims - 1 - middle) * (seconds - mean) for claims, seconds in self._median.items())
        expected, firm = SLOPE * mean / (1 + SLOPE * middle), DOUBT * REACH**2
        slope = max(0.0, (rise + firm * expected) / (spread + firm))
        return max(mean - slope * middle, 1e-9), slope


def best_size(tokens: Sequence[float], seconds: Sequence[float]) -> int:
    """The index with the most tokens per second, the first on a tie."""
    rates = [gained / cost for gained, cost in zip(tokens, seconds, strict=True)]
    return max(range(len(rates)), key=rates.__getitem__)
