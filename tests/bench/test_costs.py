"""Timed rounds do what rounds of the engine do, and the figures are medians of what was measured."""

from __future__ import annotations

import pytest

from treewright.api import Loaded
from treewright.bench import costs
from treewright.bench.costs import ACCEPTED, BURST, Bare, Round, Session, chain, claim_costs, first_path, measure, tree


def test_shapes() -> None:
    assert chain(4).parent.tolist() == [[-1, 0, 1, 2]]
    assert tree(7).parent.tolist() == [[-1, 0, 0, 1, 1, 2, 2]]
    assert tree(1).columns == chain(1).columns == 1


def test_the_first_path() -> None:
    assert first_path(tree(7), 2) == [1, 3]
    assert first_path(chain(5), 9) == [1, 2, 3, 4]
    assert first_path(tree(1), 2) == []


@pytest.mark.parametrize("shape", ["tree", "chain"])
def test_a_session_round_scores_commits_and_grows_the_text(tiny: Loaded, shape: str) -> None:
    lane = Session(tiny, rows=2, context=9, shape=shape)
    for claims, gained in ((1, 1), (2, 2), (8, ACCEPTED + 1)):
        found = lane.round(claims)
        rounds = lane._rounds(claims)
        assert 0 < found.forward < found.seconds
        assert rounds.text.length.tolist() == [9 + gained] * 2
        assert rounds._session.seen.tolist() == [9 + gained - 1] * 2


def test_a_session_is_opened_afresh_before_it_is_full(tiny: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(costs, "GROWTH", 7)
    lane = Session(tiny, rows=1, context=5, shape="chain")
    lengths = []
    for _ in range(4):
        lane.round(4)
        lengths.append(int(lane._open[4].text.length[0]))
    assert lengths == [8, 11, 8, 11]


def test_a_bare_forward_leaves_the_cache_as_it_was(tiny: Loaded) -> None:
    lane = Bare(tiny, rows=2, context=6)
    assert lane.round(5).seconds > 0
    assert lane._cache.get_seq_length() == 6  # type: ignore[attr-defined]


class Scripted:
    """A lane whose rounds take 10 n seconds in the first of a burst, n, 2n, 3n ... after."""

    def __init__(self, slow: float) -> None:
        self._slow, self.calls = slow, 0

    def round(self, claims: int) -> Round:
        self.calls += 1
        return Round(self._slow * claims * self.calls, 0.5 * self._slow * claims * self.calls)


def test_medians_leave_out_the_warm_up_and_the_first_of_a_burst() -> None:
    lane = Scripted(slow=0.001)
    found = measure({"x": lane}, (1,), repeats=1)["x"][1]
    assert lane.calls == 1 + BURST
    assert (found.seconds, found.forward) == pytest.approx((0.004, 0.002))


def test_slow_rounds_come_alone() -> None:
    lane = Scripted(slow=1.0)
    found = measure({"x": lane}, (1,), repeats=3)["x"][1]
    assert lane.calls == 4 and found.seconds == pytest.approx(3.0)


def test_a_budget_stops_after_two_passes() -> None:
    lane = Scripted(slow=1.0)
    measure({"x": lane}, (1,), repeats=9, budget=0.0)
    assert lane.calls == 1 + 2


def test_costs_by_number_of_claims(tiny: Loaded) -> None:
    found = claim_costs(tiny, 2, (1, 4), context=8, repeats=1)
    assert set(found) == {1, 4} and all(seconds > 0 for seconds in found.values())
