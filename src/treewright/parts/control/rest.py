"""When to look for drafts at all, where a look costs something and finds nothing."""

from __future__ import annotations

PATIENCE, LONGEST_REST = 16, 15
"""Refusals of drafts one after the other, shared among the rows, before rounds go by without a look for drafts, and most such
rounds together: a look costs as much for each row, and what it can gain for the batch is no more."""
ASLEEP = 3
"""Rests one after the other behind which nothing is learned in them either."""


class Rest:
    """Rounds without a look for drafts: the longer, the more often drafts were refused one after the other."""

    def __init__(self) -> None:
        self._rests, self._left, self._refused = 0, 0, 0

    def refuse(self, rows: int) -> None:
        """A look found nothing that pays, in a round of so many rows."""
        self._refused += 1
        self._rests = max(0, self._refused - max(1, PATIENCE // rows))
        self._left = min(2**self._rests, LONGEST_REST + 1) - 1

    def end(self) -> None:
        """Drafts paid."""
        self._refused, self._rests = 0, 0

    def take(self, awake: bool) -> bool:
        """Whether this round goes by without a look; `awake` ends a rest at once."""
        if awake or not self._left:
            self._left = 0
            return False
        self._left -= 1
        return True

    @property
    def deep(self) -> bool:
        """Whether a rest is one from learning as well."""
        return self._rests > ASLEEP
