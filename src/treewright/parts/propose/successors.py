"""What the target itself predicted after the last one, two and three tokens, whatever the text before them was."""

from __future__ import annotations

import numpy as np

from treewright.parts.propose.chances import BY_RANK
from treewright.parts.propose.guess_kernels import FREE, NONE, ORDERS, WIDEST, Known, find, learn_text, learn_tree, rehash

FIRST = 1 << 12
"""Places of the table at first."""
PIECE = 1 << 12
"""Places of a long text that are read at once."""
MOST = 1 << 20
"""Contexts kept; the oldest half is dropped when there are more."""


def _table(vocabulary: int, places: int) -> Known:
    ids, shares = np.full((places, WIDEST), NONE, np.int32), np.zeros((places, WIDEST), np.uint8)
    return Known(vocabulary, np.full(places, FREE, np.int64), ids, shares, np.zeros(places, np.int64), np.zeros(2, np.int64))


class Successors:
    """For contexts of 1 to `ORDERS` tokens, up to `WIDEST` tokens that the target last predicted there, most probable first, each
    with the kind of its share among them (`chances.EDGES`)."""

    def __init__(self, vocabulary: int) -> None:
        self.known = _table(vocabulary, FIRST)

    def learn(
        self, before: np.ndarray, tokens: np.ndarray, parents: np.ndarray, ids: np.ndarray, shares: np.ndarray
    ) -> None:  # fmt: skip
        """Keeps what the target predicted at each of N claims, after the claims' own paths. before [n]: the text's last tokens,
        at most `ORDERS`, the frontier among them; tokens, parents [N]; ids, shares [N, k]."""
        self._reserve(len(tokens))
        learn_tree(self.known, before, tokens, parents, ids, shares)

    def read(self, text: np.ndarray, ids: np.ndarray) -> None:
        """Keeps what the target predicted at the first n places of a text, ids [n, k], without their shares."""
        shares = np.array(BY_RANK, np.uint8)
        for first in range(0, len(ids), PIECE):
            begin, end = max(0, first - ORDERS + 1), min(first + PIECE, len(ids))
            self._reserve(end - first)
            learn_text(self.known, text[begin:end], first - begin, np.ascontiguousarray(ids[first:end]), shares)

    def after(self, before: list[int]) -> list[tuple[int, ...]]:
        """What was predicted after the last token, the last two and so on, as far as such a context is known."""
        found, key = [], 0
        for token in before[: -ORDERS - 1 : -1]:
            key = key * self.known.vocabulary + token + 1
            place = find(self.known.keys, key)
            if self.known.keys[place] == FREE:
                break
            found.append(tuple(int(token) for token in self.known.ids[place] if token != NONE))
        return found

    def _reserve(self, claims: int) -> None:
        """Makes room for the contexts of so many claims; a table is never more than half full."""
        used, since = int(self.known.used[0]), 0
        wanted = used + ORDERS * claims
        if 2 * wanted <= len(self.known.keys):
            return
        if wanted > MOST and used:
            since = int(np.median(self.known.stamp[self.known.keys != FREE])) + 1
        places = len(self.known.keys)
        while 2 * wanted > places and not (since and places >= 2 * MOST):
            places *= 2
        larger = _table(self.known.vocabulary, places)
        rehash(self.known, larger, since)
        self.known = larger
