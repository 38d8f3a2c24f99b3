"""EAGLE-2's tree: against a plain reading of the algorithm, and the law of its text."""

from __future__ import annotations

import numpy as np
import pytest

from treewright.core.claims import Law
from treewright.core.errors import InputError
from treewright.core.request import Sampling
from treewright.methods.speculate import eagle2_tree
from treewright.models.tables import Table
from treewright.testing import laws
from treewright.testing.reports import LawBroken

TARGET = Table(6, seed=1)
DRAFT = Table(6, seed=2, like=TARGET, likeness=0.4)
PROMPTS = [(1, 0), (5,), (2, 3, 4, 0)]


def by_the_book(softmax, prompt, nodes: int, top_k: int, depth: int) -> set[tuple[int, ...]]:
    """The best `nodes` of all that the beams offered."""
    beam, offered = [((), 1.0)], []
    for _ in range(depth):
        made = []
        for path, chance in beam:
            law = softmax(DRAFT.logits((*prompt, *path)))
            made += [((*path, int(token)), chance * law[token]) for token in np.argsort(-law)[:top_k]]
        offered += made
        beam = sorted(made, key=lambda one: -one[1])[:top_k]
    return {path for path, _ in sorted(offered, key=lambda one: -one[1])[:nodes]}


@pytest.mark.parametrize(("nodes", "top_k", "depth"), [(12, 3, 4), (5, 2, 3), (1, 3, 2), (40, 4, 3), (6, 1, 6), (30, 9, 2)])
@pytest.mark.parametrize("temperature", [0.0, 0.5])
def test_claims_are_the_best_of_what_the_beams_offer(nodes, top_k, depth, temperature, first_forest, paths_of, softmax):
    options = {"nodes": nodes, "top_k": top_k, "depth": depth}
    forest = first_forest("eagle2_tree", options, TARGET, DRAFT, PROMPTS, temperature)
    for row, prompt in enumerate(PROMPTS):
        paths = paths_of(forest, row)
        assert set(paths) == by_the_book(softmax, prompt, **options)
        assert len(set(paths)) == len(paths) and all(path[:-1] in {(), *paths} for path in paths)
    assert set(forest.law) == {Law.DELTA}


def test_joint_law_of_two_tokens_is_the_targets(off_the_law):
    target, draft = Table(4, seed=10), Table(4, seed=1)
    assert off_the_law("eagle2_tree", {"nodes": 4, "top_k": 2, "depth": 2}, target, draft) < 1e-12


def test_calling_claims_draws_is_seen(spoiled):
    with pytest.raises(LawBroken):
        laws.lossless("eagle2_tree", {"nodes": 3, "top_k": 2}, alter=spoiled)


def test_sampled_tokens_are_those_of_plain_sampling():
    assert laws.follows_plain("eagle2_tree", {"nodes": 6})


def test_equal_paths_hang_together(first_forest, paths_of):
    """A draft that is certain gives every path of a chain the value 1: parents still come before children."""
    certain = Table(5, seed=3, sharpness=400.0)
    paths = paths_of(first_forest("eagle2_tree", {"nodes": 4, "top_k": 2, "depth": 6}, TARGET, certain, [PROMPTS[0]]))
    assert [len(path) for path in paths] == [1, 2, 3, 4]


def test_calls_and_text(decode, greedy_text):
    decoded = decode(TARGET, "eagle2_tree", PROMPTS, {"nodes": 8, "top_k": 3, "depth": 3}, DRAFT, max_new_tokens=30)
    assert decoded.tokens == [greedy_text(TARGET, prompt, 30) for prompt in PROMPTS]
    calls = [call.model for call in decoded.trace().calls if call.kind == "score"]
    assert calls[:8] == ["draft", "draft", "draft", "target"] * 2
    assert decoded.accepted() > 20


def test_the_target_as_its_own_draft_accepts_a_whole_branch(decode):
    decoded = decode(TARGET, "eagle2_tree", PROMPTS, {"nodes": 90, "top_k": 4, "depth": 3}, TARGET, max_new_tokens=16)
    assert [len(step.emitted) for step in decoded.trace().steps] == [4] * 4


def test_what_the_draft_was_asked_is_not_asked_again(drafted_columns):
    """With the target as its own draft every accepted claim but the leaf was asked, so a round begins with two columns: the leaf
    and the token after it."""
    assert drafted_columns("eagle2_tree", {"nodes": 30, "top_k": 4, "depth": 3})[:6] == [1, 4, 4, 2, 4, 4]


@pytest.mark.parametrize(("columns", "most"), [(None, 20), (7, 6), (2, 1), (1, 0)])
def test_limit_on_columns(columns, most, first_forest, paths_of):
    options = {"nodes": 20, "top_k": 3, "depth": 4}
    assert len(paths_of(first_forest("eagle2_tree", options, TARGET, DRAFT, PROMPTS[:1], columns=columns))) == most


def test_rows_do_not_depend_on_their_neighbours(check_rows):
    check_rows("eagle2_tree", {"nodes": 9, "top_k": 3, "depth": 4}, TARGET, DRAFT)


def test_rows_near_their_end_claim_what_can_become_text(decode, greedy_text, watcher):
    depths = watcher(lambda outcome: outcome.round.forest.shape.depth[outcome.round.forest.token >= 0].max())
    decoded = decode(TARGET, "eagle2_tree", PROMPTS[:1], {"depth": 6}, DRAFT, [depths], max_new_tokens=3, sampling=Sampling())
    assert decoded.tokens == [greedy_text(TARGET, PROMPTS[0], 3)]
    assert depths.seen[0] <= 2


def test_real_models_write_their_greedy_text(check_on_llamas):
    check_on_llamas("eagle2_tree", {"nodes": 12, "top_k": 3, "depth": 4})


@pytest.mark.parametrize("option", ["nodes", "top_k", "depth"])
def test_impossible_options_are_refused(option):
    with pytest.raises(InputError, match=f"{option} is 0; allowed: an integer >= 1"):
        eagle2_tree.Config(**{option: 0})
