"""Rests from looking for drafts."""

from __future__ import annotations

import pytest

from treewright.parts.control.rest import ASLEEP, CAUTION, CREDIT, LISTENS, LONGEST_REST, SPELL, Rest


def spells(rest, gain, count):
    """(rounds with a look, rounds of the rest behind them), so many times. gain: beyond what a look is known to cost."""
    found = []
    for _ in range(count):
        looks = rests = 0
        while not rest.take(awake=False):
            rest.judge(gain + CAUTION)
            looks += 1
            if looks > 1000:
                return [*found, (looks, 0)]
        rests = 1
        while rest._left:
            rest.take(awake=False)
            rests += 1
        found.append((looks, rests))
    return found


def test_what_loses_a_little_rests_for_ever_longer():
    found = spells(Rest(), -0.1, 9)
    assert found[0][0] == pytest.approx(CREDIT / 0.1, abs=1.5)
    assert all(looks == pytest.approx(SPELL / 0.1, abs=1.5) for looks, _ in found[1:])
    assert [rests for _, rests in found] == [3, 15] + [LONGEST_REST] * 7
    assert 0.1 * found[-1][0] / sum(found[-1]) < 0.03


def test_what_loses_much_rests_at_once():
    assert spells(Rest(), -9.0, 3) == [(1, 3), (1, 15), (1, 63)]


def test_rows_that_wait_for_each_other_must_gain_more():
    rests = []
    for rows in (1, 2, 8):
        rest, looks = Rest(), 0
        while not rest.take(awake=False) and looks < 1000:
            rest.judge(CAUTION + 0.06, rows)
            looks += 1
        rests.append(looks < 1000)
    assert rests == [False, False, True]


def test_what_pays_never_rests_and_forgets_that_it_did():
    assert spells(Rest(), 0.01, 1) == [(1001, 0)]
    rest = Rest()
    spells(rest, -1.0, 5)
    rest.judge(CREDIT + CAUTION)
    assert not rest.take(awake=False) and spells(rest, -9.0, 1)[0][1] == 3


def test_a_rest_ends_where_a_text_copies_itself():
    rest = Rest()
    spells(rest, -9.0, 4)
    rest.judge(-9.0)
    assert rest.take(awake=False) and not rest.take(awake=True) and not rest.take(awake=False)


def test_a_rest_listens_now_and_then():
    rest = Rest()
    assert not rest.listens
    spells(rest, -9.0, 6)
    rest.judge(-9.0)
    heard = []
    for _ in range(LONGEST_REST):
        heard.append(rest.listens)
        assert rest.take(awake=False)
    assert sum(heard) == LONGEST_REST // LISTENS and not rest.listens


def test_another_request_is_looked_at_again_and_rests_sooner_than_the_first():
    rest = Rest()
    spells(rest, -9.0, 7)
    rest.judge(-9.0)
    rest.begin()
    assert not rest.take(awake=False)
    looks, rests = spells(rest, -0.1, 1)[0]
    assert looks == pytest.approx(SPELL / 0.1, abs=1.5) and rests == LONGEST_REST
    fresh = Rest()
    fresh.begin()
    assert spells(fresh, -0.1, 3) == spells(Rest(), -0.1, 3)


def test_learning_stops_in_long_rests():
    rest, deep = Rest(), []
    for _ in range(4):
        rest.judge(-9.0)
        deep.append((rest._length > ASLEEP, rest.deep))
        while rest.take(awake=False):
            pass
    assert deep == [(False, False), (True, True), (True, True), (True, True)]
