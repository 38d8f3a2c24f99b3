"""When to look for drafts at all, where looking, drafting and learning cost more than they bring."""

from __future__ import annotations

import math

CREDIT, SPELL = 5.0, 1.5
"""What one row may lose before the first rest, and between two rests, in rounds of one claim. Luck evens out among several rows,
so they may lose less, by the root of their number."""
CAUTION = 0.06
"""What a round with a look costs beyond what can be seen in it: it leaves the processor's caches to what it looked at."""
WAITING = 0.1
"""What drafts cost beside that in a large batch: its rows do not end together, and the last ones run nearly alone."""
LONGEST_REST = 63
"""The most rounds together that go by without a look."""
ASLEEP = 4
"""In longer rests nothing is learned either."""
LISTENS = 8
"""Rounds of a rest between two looks at whether a text has begun to copy itself."""
FORGIVEN = 4
"""By what a rest of an earlier request is shortened for the next, whose text may be another kind of text."""


class Rest:
    """Rounds without a look for drafts: the longer, the more often the rounds between two rests lost.

    What counts is what rounds brought and what they cost, not what was thought of them before: promises are too high where
    drafts are chosen by them, and neither they nor a single round know what looking and learning cost.
    """

    def __init__(self) -> None:
        self._share, self._length, self._left = 1.0, 0, 0

    def begin(self) -> None:
        """Another request. Looks are worth more again, for its text may be of another kind."""
        self._length //= FORGIVEN
        self._left, self._share = 0, SPELL / CREDIT if self._length else 1.0

    def judge(self, gain: float, rows: int = 1) -> None:
        """A round with a look brought so many tokens more, for each of its rows, than rounds of one claim would have in its
        time."""
        credit = CREDIT / math.sqrt(rows)
        self._share = min(1.0, self._share + (gain - CAUTION - WAITING * (1 - 1 / rows)) / credit)
        if self._share == 1:
            self._length = 0
        elif self._share < 0:
            self._length = min(4 * self._length + 3, LONGEST_REST)
            self._left, self._share = self._length, SPELL / CREDIT

    def take(self, awake: bool) -> bool:
        """Whether this round goes by without a look; `awake` ends a rest at once."""
        if awake or not self._left:
            self._left = 0
            return False
        self._left -= 1
        return True

    @property
    def listens(self) -> bool:
        """Whether it is worth to ask, in this round of a rest, for what would end it; it does not begin with one."""
        return self._left > 0 and self._left % LISTENS == 0

    @property
    def deep(self) -> bool:
        """Whether a rest is one from learning as well."""
        return self._length > ASLEEP
