"""What a round costs, learned from the rounds themselves."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

SLOPE = 0.006
"""What a further claim is thought to cost before any is measured, as a part of a round of one."""
DOUBT = 256.0
"""How firmly that is thought: as `DOUBT` rounds that lie one claim away from the others."""
KEPT, ALONE = 256, 15
EVERY = 8
"""Rounds after which the line is drawn anew; before there are so many it is drawn after each."""
FIRST, PROBE = 2, 96
"""Rounds of one claim before the first of more, and rounds after which the other kind is tried again: both costs stay known."""
LASTING, TRUST = 0.98, 10.0
"""What is kept of older promises from round to round, and the tokens that trust in promises is worth before any were kept."""
SURPRISE = 2.0
"""A round longer than so many times the usual one counts as that long: a pause of the machine is no cost of claims."""


class RoundCost:
    """Seconds of a round by its number of claims, for rounds of the same number of rows: the median of the last rounds of one
    claim, and a line through the last rounds of more. To draft at all has a price that further claims do not have.

    One line and no figure for each size: a machine drifts, and a size that was seldom tried would keep what it cost on a bad
    moment for ever, and so never be tried again. since_alone, since_drafted: rounds
    since the last one of one claim, and of more.
    """

    def __init__(self) -> None:
        self._claims, self._seconds, self._rounds = np.zeros(KEPT), np.zeros(KEPT), 0
        self._alone, self._rounds_alone, self._tried_alone = np.zeros(ALONE), 0, 0
        self._base, self._slope = 1.0, SLOPE
        self._promised, self._gained = 0.0, 0.0
        self.since_alone, self.since_drafted = 0, 0

    def update(self, claims: int, seconds: float) -> None:
        """One round of so many claims, frontier included, took so long. One of 0 seconds was not measured."""
        self._tried_alone += claims == 1
        self.since_alone = 0 if claims == 1 else self.since_alone + 1
        self.since_drafted = self.since_drafted + 1 if claims == 1 else 0
        if seconds <= 0:
            return
        if claims == 1:
            self._alone[self._rounds_alone % ALONE] = seconds
            self._rounds_alone += 1
            return
        place = self._rounds % KEPT
        self._claims[place], self._seconds[place] = claims, seconds
        self._rounds += 1
        if self._rounds < EVERY or self._rounds % EVERY == 0:
            self._fit(min(self._rounds, KEPT))

    def kept(self, promised: float, gained: int) -> None:
        """A round of more than one claim was thought to bring so many tokens beside one for each row, and brought so many."""
        self._promised, self._gained = LASTING * self._promised + promised, LASTING * self._gained + gained

    @property
    def plain_is_due(self) -> bool:
        """Whether a round of one claim must be measured before a decision."""
        return self._tried_alone < FIRST or self.since_alone >= PROBE

    def pays(self, claims: int, rows: int, promised: float) -> bool:
        """Whether a round of so many claims, thought to bring `promised` tokens beside one for each row, brings more tokens a
        second than one of one claim. Promises are held to what earlier ones were worth; refusals are tested now and then."""
        if self.since_drafted >= PROBE:
            return True
        alone, drafted = self.at([1, claims])
        likely = promised * (self._gained + TRUST) / (self._promised + TRUST)
        return (rows + likely) / drafted > rows / alone

    def _fit(self, count: int) -> None:
        further, took = self._claims[:count] - 1, self._seconds[:count]
        took = np.minimum(took, SURPRISE * np.median(took))
        middle, mean = further.mean(), took.mean()
        expected = SLOPE * mean / (1 + SLOPE * middle)
        rise = float((further - middle) @ (took - mean)) + DOUBT * expected
        self._slope = max(0.0, rise / (float(((further - middle) ** 2).sum()) + DOUBT))
        self._base = max(float(mean - self._slope * middle), 1e-9)

    def at(self, sizes: Sequence[int]) -> list[float]:
        """Expected seconds of rounds of these sizes; 1 for the first claim where nothing was measured."""
        alone, base, slope = self._base, self._base, self._slope
        if self._rounds_alone:
            alone = float(np.median(self._alone[: self._rounds_alone]))
            base, slope = (base, slope) if self._rounds else (alone, alone * SLOPE)
        return [alone if claims == 1 else base + slope * (claims - 1) for claims in sizes]
