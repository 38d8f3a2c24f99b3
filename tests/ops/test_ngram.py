"""Searching a text for its own last n-gram, against a search by definition."""

from __future__ import annotations

import numpy as np
import pytest

from treewright.ops.ngram import continuation


def by_definition(text: list[int], longest: int, width: int, latest: bool, full: bool) -> list[int]:
    for size in range(min(longest, len(text) - 1), 0, -1):
        starts = [start for start in range(len(text) - size) if text[start : start + size] == text[-size:]]
        ends = [start + size for start in starts if not full or start + size + width <= len(text)]
        if ends:
            whole = [end for end in ends if end + width <= len(text)]
            end = whole[-1] if latest and whole else ends[0]
            return text[end : end + width]
    return []


@pytest.mark.parametrize("latest", [True, False])
@pytest.mark.parametrize("full", [True, False])
def test_it_finds_what_a_plain_search_finds(latest: bool, full: bool) -> None:
    random, found = np.random.default_rng(1), 0
    for _ in range(300):
        text = random.integers(0, 3, size=random.integers(1, 14))
        longest, width = int(random.integers(1, 5)), int(random.integers(1, 6))
        expected = by_definition(text.tolist(), longest, width, latest, full)
        assert continuation(text, longest, width, latest, full).tolist() == expected
        found += bool(expected)
    assert found > 150


@pytest.mark.parametrize(("text", "width"), [([], 3), ([1], 3), ([1, 2, 3], 3), ([1, 1, 1], 0)])
def test_nothing_to_find_is_empty(text: list[int], width: int) -> None:
    assert len(continuation(np.array(text, np.int64), 3, width)) == 0
