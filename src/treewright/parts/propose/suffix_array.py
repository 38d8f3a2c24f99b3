"""Suffix arrays over token ids: where a run of tokens occurs, and what follows it."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence

import numpy as np

from treewright.core.claims import ABSENT

WORD = 4
"""Bytes of a token: big-endian, so that comparing bytes compares tokens. A token is stored as its id + 1; 0 ends a text."""


class SuffixArray:
    """The places of several texts, sorted by the `span` tokens that begin there (ties by place)."""

    def __init__(self, texts: Sequence[np.ndarray], starts: Sequence[int], span: int) -> None:
        """starts[i]: only the first starts[i] places of text i are found; what is behind them only continues. Cost: log2(span)
        sorts of all places."""
        gap = [np.zeros(span + 1, np.int64)]
        codes = np.concatenate([part for text in texts for part in (text + 1, gap[0][:1])] + gap)
        offsets = np.cumsum([0, *(len(text) + 1 for text in texts)])
        self.tokens = int(sum(starts))
        rank = np.unique(codes, return_inverse=True)[1]
        length = 1
        while length < span:
            later = np.concatenate([rank[length:], np.zeros(length, rank.dtype)])
            rank = np.unique(rank * (int(rank.max()) + 1) + later, return_inverse=True)[1]
            length *= 2
        places = np.concatenate([np.arange(first, first + count) for first, count in zip(offsets, starts, strict=False)])
        self._places = places[np.argsort(rank[places], kind="stable")]
        self._codes = codes
        self._bytes = codes.astype(">u4").tobytes()

    def find(self, run: Sequence[int]) -> range:
        """Which entries of the sorted places begin with a run of at most `span` tokens. Cost: two binary searches."""
        wanted, data = (np.asarray(run, np.int64) + 1).astype(">u4").tobytes(), self._bytes
        size = len(wanted)

        def key(place: int) -> bytes:
            return data[WORD * place : WORD * place + size]

        first = bisect_left(self._places, wanted, key=key)  # type: ignore[type-var]
        if first == len(self._places) or key(int(self._places[first])) != wanted:
            return range(0)
        return range(first, bisect_right(self._places, wanted, lo=first, key=key))  # type: ignore[type-var]

    def following(self, found: range, length: int, count: int, most: int) -> np.ndarray:
        """The `count` tokens behind runs of `length` at these entries [H, count], ABSENT behind a text's end. Of more than `most`
        entries, `most` that are spread evenly over them."""
        chosen = np.arange(found.start, found.stop)
        if len(chosen) > most:
            chosen = chosen[np.arange(most) * len(chosen) // most]
        behind = self._places[chosen, None] + length + np.arange(count)
        codes = self._codes[np.minimum(behind, len(self._codes) - 1)]
        return np.where(np.minimum.accumulate(codes, axis=1) > 0, codes - 1, ABSENT)
