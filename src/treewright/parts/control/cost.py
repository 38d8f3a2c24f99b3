"""What a round of claims costs beside a round without, learned from the rounds themselves."""

from __future__ import annotations

import numpy as np

FIRST, PROBE = 2, 48
"""Rounds of one claim before the first of more, and rounds after which the other kind is tried again."""
NEAR = 4
"""Two rounds are compared where they lie no more than so many rounds apart."""
KEPT, EVERY = 64, 8
"""Comparisons kept, the last ones, and how many make it worth to draw the line anew; the first few are worth it each."""
BEGIN, SLOPE = 1.2, 0.006
"""What a round of a few claims, and each further one of each row, is thought to cost before any is compared, as parts of a round
of one."""
TRUST, DOUBT = 3, 256.0
"""How firmly that is thought: as so many comparisons, and as `DOUBT` of them that lie one claim away from the others."""
KEPT_PROMISE = 0.85
"""What promises are worth: drafts are chosen by them, which makes them too high."""
SURPRISE = 2.0
"""A round longer than so many times what was expected counts as that long: a pause of the machine is no cost of claims."""


class RoundCost:
    """The cost of a round of more claims in rounds of one, for rounds of `rows` rows: a line through comparisons of
    rounds that lay near each other. To draft at all has a price that further claims do not have.

    A machine's speed drifts by more than claims cost, so that seconds of long ago say nothing; what two rounds in a row took
    does. One line and no figure for each size, because a size that was seldom tried would keep what it cost in a bad moment
    for ever. alone: the seconds of the last measured round of one claim, 0 before it.
    """

    def __init__(self, rows: int = 1) -> None:
        self._rows, self._expected = rows, SLOPE * rows
        self._claims, self._ratio, self._compared = np.zeros(KEPT), np.zeros(KEPT), 0
        self._base, self._slope = BEGIN, self._expected
        self.alone = 0.0
        self._drafted: list[tuple[int, int, float]] = []
        self._widths = {1}
        self._rounds, self._rounds_alone, self._last = 0, 0, {True: 0, False: 0}

    def update(self, claims: int, seconds: float) -> None:
        """One round of so many claims, frontier included, took so long. One of 0 seconds was not measured; the first of a width
        is not counted, for it may hold what is built once."""
        self._rounds += 1
        alone = claims == 1
        self._rounds_alone += alone
        last_alone, self._last[alone] = self._last[True], self._rounds
        if seconds <= 0 or claims not in self._widths:
            self._widths.add(claims)
        elif alone:
            for when, width, took in self._drafted:
                if self._rounds - when <= NEAR:
                    self._compare(width, took, seconds)
            self.alone, self._drafted = seconds, []
        else:
            if self.alone and self._rounds - last_alone <= NEAR:
                self._compare(claims, seconds, self.alone)
            self._drafted = [*self._drafted[1 - NEAR :], (self._rounds, claims, seconds)]

    def _compare(self, claims: int, seconds: float, alone: float) -> None:
        place = self._compared % KEPT
        most = SURPRISE * self.at(claims)
        self._claims[place], self._ratio[place] = claims, min(seconds / alone, most)
        self._compared += 1
        if self._compared < EVERY or self._compared % EVERY == 0:
            self._fit(min(self._compared, KEPT))

    def _fit(self, count: int) -> None:
        further, ratio = self._claims[:count] - 1, self._ratio[:count]
        middle, mean = further.mean(), ratio.mean()
        rise = float((further - middle) @ (ratio - mean)) + DOUBT * self._expected
        self._slope = max(0.0, rise / (float(((further - middle) ** 2).sum()) + DOUBT))
        self._base = float(np.median([*(ratio - self._slope * further), *[BEGIN] * TRUST]))

    def at(self, claims: int) -> float:
        """The cost of a round of so many claims, in rounds of one."""
        return 1.0 if claims == 1 else self._base + self._slope * (claims - 1)

    @property
    def plain_is_due(self) -> bool:
        """Whether a round of one claim must be seen before a decision."""
        return self._rounds_alone < FIRST or self._rounds - self._last[True] >= PROBE

    def pays(self, claims: int, promised: float) -> bool:
        """Whether a round of so many claims, thought to bring `promised` tokens beside one for each row, brings more tokens a
        second than one of one claim. Refusals are tested now and then."""
        tested = self._rounds - self._last[False] >= PROBE
        return tested or self._rows + KEPT_PROMISE * promised > self._rows * self.at(claims)
