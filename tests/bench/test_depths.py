"""Accepted depths counted by hand."""

from __future__ import annotations

import pytest

from treewright.api import Loaded
from treewright.bench.contestants import Ours, Setting, placeholders
from treewright.bench.depths import Depths
from treewright.core.recipe import Recipe
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


def test_a_claim_behind_a_cut_text_was_not_judged() -> None:
    depths, chain = Depths(), [-1, 0, 1, 2]
    cut = Step(0, [5] * 4, chain, [1, 2], [5, 5])
    depths.add([cut])
    assert (depths.tried, depths.accepted, depths.claims) == ([1, 1], [1, 1], 3)
    depths.add([step(chain, [1, 2])])
    assert (depths.tried, depths.accepted) == ([2, 2, 1], [2, 2, 0])


def test_placeholders_and_orphans_are_no_drafts() -> None:
    depths = Depths()
    behind = Step(0, [5, 9, 9, 9], [-1, 0, 1, 2], [], [7, 8])
    depths.add([behind], placeholders={9})
    assert (depths.rounds, depths.claims, depths.tried) == (1, 0, [])
    depths.add([Step(0, [5, 6, 9], [-1, 0, 1], [1], [6, 7])], placeholders={9})
    assert (depths.claims, depths.tried, depths.accepted) == (1, [1], [1])
    # The target may write the placeholder's own token, and then it was as good a draft as any.
    depths.add([Step(0, [5, 9], [-1, 0], [1], [9, 7])], placeholders={9})
    assert (depths.claims, depths.tried, depths.accepted) == (2, [2], [2])
    depths.add([step([-1, -1, 0], [])])
    assert (depths.claims, depths.tried, depths.accepted) == (3, [3], [2])


def test_placeholders_are_read_off_the_recipe() -> None:
    assert placeholders(Recipe.of("lexical_units", {"placeholder": 7})) == {7}
    assert placeholders(Recipe.of("lexical_units")) == {0} and placeholders(Recipe.of("jacobi")) == frozenset()
    arms = ("prompt_lookup", "lexical_units:placeholder=5:verify=true")
    assert placeholders(Recipe.of("banditspec", {"arms": arms})) == {5}


def test_a_run_counts_what_could_be_accepted(tiny: Loaded) -> None:
    setting = Setting(0.0, 1, 12, 0, True)
    units = Ours("u", "lexical_units", {"window": 4, "placeholder": 299, "confidence": 0.0}, tiny)
    found = units.run([[5, 6, 7]], setting, 0).depths
    assert found is not None and found.rounds > 0 and found.claims == 0 and found.tried == []
    checked = Ours("v", "lexical_units", {"window": 3, "placeholder": 299, "confidence": 0.0, "verify": True}, tiny)
    found = checked.run([[5, 6, 7]], setting, 0).depths
    # Two drafts a round at most, none in the first; the six placeholders of a round count as none.
    assert found is not None and 0 < found.claims <= 2 * (found.rounds - 1)
    itself = Ours("s", "speculative_sampling", {"tokens": 4}, tiny, {"draft": tiny})
    found = itself.run([[5, 6, 7]], setting, 0).depths
    # A draft model that is the target is never refused, at the end of a text neither.
    assert found is not None and found.tried == found.accepted
