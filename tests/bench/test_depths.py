"""Accepted depths counted by hand."""

from __future__ import annotations

import pytest

from treewright.bench.depths import Depths
from treewright.core.trace import Step


def step(parent: list[int], accepted: list[int], absent: tuple[int, ...] = ()) -> Step:
    token = [-1 if column in absent else 5 for column in range(len(parent))]
    return Step(0, token, parent, accepted, [7] * (len(accepted) + 1))


def test_a_round_tries_what_it_claimed_below_what_was_accepted() -> None:
    depths = Depths()
    chain = [-1, 0, 1, 2]
    depths.add([step(chain, [1, 2]), step(chain, []), step(chain, [1, 2, 3]), step([-1], [])])
    assert (depths.tried, depths.accepted) == ([3, 2, 2], [2, 2, 1])
    assert depths.rounds == 4 and depths.claims == 9
    assert depths.chances == [2 / 3, 1.0, 0.5] and depths.tokens_per_round == pytest.approx(1 + 5 / 4)


def test_absent_claims_are_no_drafts() -> None:
    depths = Depths()
    depths.add([step([-1, 0, 1], [1], absent=(2,))])
    assert (depths.tried, depths.accepted, depths.claims) == ([1], [1], 1)


def test_counts_add_up() -> None:
    one, other = Depths(), Depths()
    one.add([step([-1, 0], [1])])
    other.add([step([-1, 0, 1], [1, 2]), step([-1, 0], [])])
    one.merge(other)
    assert (one.rounds, one.claims, one.tried, one.accepted) == (3, 4, [3, 1], [2, 1])
