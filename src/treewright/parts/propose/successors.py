"""What the target itself predicted after the last one, two and three tokens, whatever the text before them was."""

from __future__ import annotations

from collections.abc import Sequence

ORDERS = 3
"""Longest context that is kept, in tokens."""
MOST = 400_000
"""Contexts kept of each length; the oldest half is dropped when there are more."""


class Successors:
    """For contexts of 1 to `ORDERS` tokens, the `k` tokens that the target last predicted there, most probable first."""

    def __init__(self, vocabulary: int) -> None:
        self._vocabulary = vocabulary
        # Tuples, for Python's collector of garbage goes through every list again and again.
        self._known: list[dict[int, tuple[int, ...]]] = [{} for _ in range(ORDERS)]

    def learn(self, before: Sequence[int], predicted: Sequence[int]) -> None:
        """Keeps what the target predicted after the tokens `before` (the last `ORDERS` of them, or fewer)."""
        key, predicted = 0, tuple(predicted)
        for order, known in enumerate(self._known[: len(before)]):
            key = key * self._vocabulary + before[-1 - order] + 1
            known[key] = predicted
            if len(known) > MOST:
                for old in list(known)[: MOST // 2]:
                    del known[old]

    def after(self, before: Sequence[int]) -> list[tuple[int, ...]]:
        """What was predicted after the last token, the last two and so on, as far as such a context is known."""
        found, key = [], 0
        for known, token in zip(self._known, reversed(before), strict=False):
            key = key * self._vocabulary + token + 1
            predicted = known.get(key)
            if predicted is None:
                break
            found.append(predicted)
        return found
