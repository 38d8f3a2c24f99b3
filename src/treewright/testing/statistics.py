"""Does a sample come from a law? Pearson's chi-square test, with rare cells pooled."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

import torch

Cell = TypeVar("Cell", bound=Hashable)
LEAST_EXPECTED = 5.0


@dataclass(frozen=True, slots=True)
class ChiSquare:
    """statistic: sum of (observed - expected)^2 / expected over `cells`. p_value: the chance of one as large under the law
    with cells - 1 degrees of freedom. impossible: draws that the law gives probability 0; any makes p_value 0."""

    samples: int
    cells: int
    statistic: float
    p_value: float
    impossible: int

    def to_json(self) -> dict[str, Any]:
        """The test as plain data."""
        return asdict(self)


def chi_square(sample: Sequence[Cell], law: Mapping[Cell, float]) -> ChiSquare:
    """Tests whether `sample` was drawn from `law`. Cells are pooled, rarest first, until each expects 5 draws or more."""
    counts = Counter(sample)
    impossible = sum(count for cell, count in counts.items() if law.get(cell, 0.0) <= 0)
    pools: list[tuple[float, int]] = []
    expected, observed = 0.0, 0
    for cell, probability in sorted(law.items(), key=lambda item: item[1]):
        expected, observed = expected + probability * len(sample), observed + counts[cell]
        if expected >= LEAST_EXPECTED:
            pools.append((expected, observed))
            expected, observed = 0.0, 0
    if expected and pools:
        pools[-1] = pools[-1][0] + expected, pools[-1][1] + observed
    statistic = sum((seen - wanted) ** 2 / wanted for wanted, seen in pools)
    p_value = 0.0 if impossible else chi_square_tail(statistic, len(pools) - 1)
    return ChiSquare(len(sample), len(pools), statistic, p_value, impossible)


def chi_square_tail(statistic: float, freedom: int) -> float:
    """The probability that a chi-square variable of `freedom` degrees exceeds `statistic`; 1 without freedom."""
    if freedom < 1:
        return 1.0
    half = torch.tensor([freedom / 2, statistic / 2], dtype=torch.float64)
    return float(torch.special.gammaincc(half[0], half[1]))
