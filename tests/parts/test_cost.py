"""What rounds cost, learned from rounds whose true cost is known."""

from __future__ import annotations

import numpy as np
import pytest

from treewright.parts.control.cost import BEGIN, KEPT_PROMISE, PROBE, SLOPE, RoundCost


def rounds(cost, sizes, seconds_of):
    """Rounds of these sizes, one after the other; a size is met once before, for its first round is not counted."""
    for turn, size in enumerate([*dict.fromkeys(sizes), *sizes]):
        cost.update(size, seconds_of(size, turn))


def test_before_anything_is_compared_a_claim_costs_what_is_expected():
    assert RoundCost().at(1) == 1.0 and RoundCost().at(11) == pytest.approx(BEGIN + 10 * SLOPE)


@pytest.mark.parametrize("slope", [0.0, 0.02, 0.1])
def test_a_line_is_found_and_speaks_for_sizes_never_tried(slope):
    cost, random = RoundCost(), np.random.default_rng(0)
    sizes = random.choice([1, 8, 16, 32], 400).tolist()
    rounds(cost, sizes, lambda size, turn: 0.01 * (1 + slope * (size - 1)) * random.normal(1, 0.02))
    for size in (8, 24, 40):
        assert cost.at(size) == pytest.approx(1 + slope * (size - 1), rel=0.12)


def test_a_machine_whose_speed_changes_changes_no_cost():
    cost = RoundCost()
    for speed in (1.0, 3.0, 0.4, 1.7):
        rounds(cost, [1, 16, 16] * 20, lambda size, turn, speed=speed: speed * (1.5 if size > 1 else 1.0))
        assert cost.at(16) == pytest.approx(1.5, rel=0.02)


def test_rounds_that_lie_far_apart_are_not_compared():
    cost = RoundCost()
    for seconds, size in [(1.0, 1), (1.0, 9)] + [(7.0, 9)] * 40:
        cost.update(size, seconds)
    assert cost.at(9) < 2


def test_a_pause_of_the_machine_and_the_first_round_of_a_width_are_no_cost():
    cost = RoundCost()
    rounds(cost, [1, 8] * 40, lambda size, turn: 1.0 if turn < 2 or turn % 14 == 3 else 0.01 * (1.3 if size > 1 else 1.0))
    assert cost.at(8) == pytest.approx(1.3, rel=0.05)


@pytest.mark.parametrize("rows", [1, 4])
def test_drafts_pay_where_they_bring_more_than_they_cost(rows):
    cost = RoundCost(rows)
    rounds(cost, [1, 8] * 40, lambda size, turn: 1.5 if size > 1 else 1.0)
    enough = 0.5 * rows / KEPT_PROMISE
    assert cost.pays(8, 1.1 * enough) and not cost.pays(8, 0.9 * enough)


def test_claims_of_more_rows_are_thought_dearer():
    assert RoundCost(8).at(8) > RoundCost(1).at(8)


def test_each_kind_of_round_is_tried_again_now_and_then():
    cost = RoundCost()
    assert cost.plain_is_due
    rounds(cost, [1, 1], lambda size, turn: 1.0)
    assert not cost.plain_is_due and not cost.pays(8, 0.0)
    for _ in range(PROBE):
        cost.update(1, 1.0)
    assert cost.pays(8, 0.0)
    for _ in range(PROBE):
        cost.update(8, 1.0)
    assert cost.plain_is_due and not cost.pays(8, 0.0)


def test_rounds_that_were_not_measured_are_counted_and_teach_nothing():
    cost = RoundCost()
    for claims in (1, 9, 9, 4, 1, 4):
        cost.update(claims, 0.0)
    assert cost.at(11) == RoundCost().at(11) and not cost.plain_is_due
