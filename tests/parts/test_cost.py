"""What rounds cost, learned from rounds whose true cost is known."""

from __future__ import annotations

import numpy as np
import pytest

from treewright.parts.control.cost import SLOPE, RoundCost


def test_before_anything_is_measured_a_claim_costs_what_is_expected():
    assert RoundCost().at([1, 11]) == pytest.approx([1.0, 1.0 + 10 * SLOPE])


def test_one_size_says_how_dear_all_are():
    cost = RoundCost()
    for _ in range(10):
        cost.update(1, 0.5)
    assert cost.at([1, 11]) == pytest.approx([0.5, 0.5 + 0.5 * 10 * SLOPE])


@pytest.mark.parametrize("slope", [0.0, 0.02, 0.2])
def test_a_line_is_found_and_speaks_for_sizes_never_tried(slope):
    cost, random = RoundCost(), np.random.default_rng(0)
    for _ in range(400):
        size = int(random.choice([1, 8, 16, 32]))
        cost.update(size, 0.01 * (1 + slope * (size - 1)) * random.normal(1, 0.02))
    assert cost.at([1, 24, 64]) == pytest.approx([0.01 * (1 + slope * (size - 1)) for size in (1, 24, 64)], rel=0.12)


def test_a_pause_of_the_machine_is_no_cost():
    cost = RoundCost()
    for turn in range(60):
        cost.update(8, 1.0 if turn % 10 == 3 else 0.01)
    assert cost.at([8])[0] == pytest.approx(0.011, rel=0.05)


def test_a_size_that_had_a_bad_moment_is_not_shunned_for_ever():
    cost = RoundCost()
    for size, seconds in [(8, 0.03)] * 2 + [(4, 0.03)] * 4 + [(4, 0.01)] * 120:
        cost.update(size, seconds)
    assert cost.at([8])[0] < 1.15 * cost.at([4])[0]


def test_a_machine_that_changes_is_followed():
    cost = RoundCost()
    for seconds in (0.01, 0.03):
        for _ in range(40):
            cost.update(4, seconds)
    assert cost.at([4])[0] == pytest.approx(0.02, rel=0.05)
    for _ in range(256):
        cost.update(4, 0.03)
    assert cost.at([4])[0] == pytest.approx(0.03, rel=0.05)


def test_rounds_that_were_not_measured_are_counted_and_teach_nothing():
    cost = RoundCost()
    for claims, since in ((1, 0), (9, 1), (4, 2), (1, 0)):
        cost.update(claims, 0.0)
        assert cost.since_alone == since
    assert cost.at([1, 11]) == RoundCost().at([1, 11])
