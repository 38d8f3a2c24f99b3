"""Rests from looking for drafts."""

from __future__ import annotations

import pytest

from treewright.parts.control.rest import ASLEEP, LONGEST_REST, PATIENCE, Rest


def rests(rest, rows, looks):
    """The rounds without a look after each of so many looks, all of which found nothing."""
    found = []
    for _ in range(looks):
        rest.refuse(rows)
        count = 0
        while rest.take(awake=False):
            count += 1
        found.append(count)
    return found


@pytest.mark.parametrize("rows", [1, 8, 100])
def test_rests_begin_when_patience_ends_and_grow_to_the_longest(rows):
    patience = max(1, PATIENCE // rows)
    assert rests(Rest(), rows, patience + 7) == [0] * patience + [1, 3, 7, LONGEST_REST] + [LONGEST_REST] * 3


def test_a_rest_ends_where_a_text_copies_itself_and_begins_anew_where_drafts_paid():
    rest = Rest()
    assert rests(rest, 8, 4) == [0, 0, 1, 3]
    rest.refuse(8)
    assert rest.take(awake=False) and not rest.take(awake=True) and not rest.take(awake=False)
    rest.end()
    assert rests(rest, 8, 3) == [0, 0, 1]


def test_learning_stops_after_several_rests():
    rest = Rest()
    for _ in range(PATIENCE + ASLEEP):
        rest.refuse(1)
    assert not rest.deep
    rest.refuse(1)
    assert rest.deep
    rest.end()
    assert not rest.deep
