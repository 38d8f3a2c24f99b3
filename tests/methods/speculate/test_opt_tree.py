"""OPT-Tree: its subtree against exhaustive search, its depth against the definition, and the law of its text."""

from __future__ import annotations

import pytest

from treewright.core.errors import InputError
from treewright.methods.speculate import opt_tree
from treewright.models.tables import Table
from treewright.testing import laws
from treewright.testing.reports import LawBroken

TARGET = Table(3, seed=1)
DRAFT = Table(3, seed=2, like=TARGET, likeness=0.4)
PROMPTS = [(1, 0), (2,), (2, 1, 1, 0)]


def path_probabilities(softmax, draft, prompt, depth: int) -> dict[tuple[int, ...], float]:
    chances = {(): 1.0}
    for length in range(depth):
        for path in [path for path in chances if len(path) == length]:
            law = softmax(draft.logits((*prompt, *path)))
            chances |= {(*path, token): chances[path] * law[token] for token in range(draft.vocabulary)}
    del chances[()]
    return chances


def best_subtree(chances: dict[tuple[int, ...], float], nodes: int) -> float:
    """The largest sum over all connected sets of `nodes` nodes, one after another."""
    known, growing = set(), {frozenset[tuple[int, ...]]()}
    for _ in range(nodes):
        growing = {
            tree | {path} for tree in growing for path in chances if path not in tree and (len(path) == 1 or path[:-1] in tree)
        }
        known |= growing
    return max(sum(chances[path] for path in tree) for tree in growing)


@pytest.mark.parametrize("nodes", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("seed", [2, 5, 8])
def test_the_tree_is_the_best_subtree_of_all(nodes, seed, first_forest, paths_of, softmax):
    draft = Table(3, seed=seed, sharpness=1.5)
    options = {"nodes": nodes, "threshold": 0, "depth": 3}
    forest = first_forest("opt_tree", options, TARGET, draft, PROMPTS)
    for row, prompt in enumerate(PROMPTS):
        chances, paths = path_probabilities(softmax, draft, prompt, 3), paths_of(forest, row)
        assert len(set(paths)) == nodes and all(path[:-1] in {(), *paths} for path in paths)
        assert sum(chances[path] for path in paths) == pytest.approx(best_subtree(chances, nodes), abs=1e-12)


@pytest.mark.parametrize("threshold", [0.0, 0.05, 0.2, 0.4, 0.6, 2.0])
@pytest.mark.parametrize("draft", [DRAFT, Table(3, seed=6, sharpness=2.5)], ids=["flat", "sharp"])
def test_levels_are_drafted_while_they_pay(threshold, draft, decode, first_forest, paths_of, softmax):
    nodes, most = 6, 7
    chances = path_probabilities(softmax, draft, PROMPTS[0], most)

    def expected(depth: int) -> float:
        return sum(sorted((chance for path, chance in chances.items() if len(path) <= depth), reverse=True)[:nodes])

    depth = 1
    while depth < most and expected(depth) - (expected(depth - 1) if depth > 1 else 0) > threshold:
        depth += 1
    within = {path: chance for path, chance in chances.items() if len(path) <= depth}
    options = {"nodes": nodes, "threshold": threshold, "depth": most}
    paths = paths_of(first_forest("opt_tree", options, TARGET, draft, PROMPTS[:1]))
    assert set(paths) == set(sorted(within, key=lambda path: -within[path])[: min(nodes, len(within))])
    calls = decode(TARGET, "opt_tree", PROMPTS[:1], options, draft, max_new_tokens=20).trace().calls
    assert [call.model for call in calls if call.kind == "score"].index("target") == depth


def test_joint_law_of_two_tokens_is_the_targets(off_the_law):
    assert off_the_law("opt_tree", {"nodes": 4, "depth": 2}, Table(4, seed=10), Table(4, seed=1)) < 1e-12


def test_calling_claims_draws_is_seen(spoiled):
    with pytest.raises(LawBroken):
        laws.lossless("opt_tree", {"nodes": 3}, alter=spoiled)


def test_sampled_tokens_are_those_of_plain_sampling():
    assert laws.follows_plain("opt_tree", {"nodes": 6})


def test_equal_paths_hang_together(first_forest, paths_of):
    certain = Table(5, seed=3, sharpness=400.0)
    paths = paths_of(first_forest("opt_tree", {"nodes": 4, "depth": 6}, Table(5, seed=1), certain, PROMPTS[:1]))
    assert [len(path) for path in paths] == [1, 2, 3, 4]


def test_the_target_as_its_own_draft_accepts_a_whole_branch(decode):
    decoded = decode(TARGET, "opt_tree", PROMPTS, {"nodes": 60, "threshold": 0, "depth": 3}, TARGET, max_new_tokens=16)
    assert [len(step.emitted) for step in decoded.trace().steps] == [4] * 4


def test_text(decode, greedy_text):
    decoded = decode(TARGET, "opt_tree", PROMPTS, {"nodes": 5}, DRAFT, max_new_tokens=30)
    assert decoded.tokens == [greedy_text(TARGET, prompt, 30) for prompt in PROMPTS]
    assert decoded.accepted() > 20


def test_only_useful_nodes_are_asked(drafted_columns):
    """Of a level, those among the best so far: 6 of the first, never 6 of every level after it; and a round begins with the
    frontier and, where a leaf was accepted, with that."""
    asked = drafted_columns("opt_tree", {"nodes": 6, "threshold": 0.0, "depth": 4})
    assert asked[0] == 1 and asked[1] == 6
    assert max(asked) == 6 and sum(asked) < 6 * len(asked)


@pytest.mark.parametrize(("columns", "most"), [(None, 20), (7, 6), (2, 1), (1, 0)])
def test_limit_on_columns(columns, most, first_forest, paths_of):
    options = {"nodes": 20, "threshold": 0.01, "depth": 6}
    assert len(paths_of(first_forest("opt_tree", options, TARGET, DRAFT, PROMPTS[:1], columns=columns))) == most


def test_rows_do_not_depend_on_their_neighbours(check_rows):
    check_rows("opt_tree", {"nodes": 6}, TARGET, DRAFT)


def test_real_models_write_their_greedy_text(check_on_llamas):
    check_on_llamas("opt_tree", {"nodes": 12, "threshold": 0.2, "depth": 5})


@pytest.mark.parametrize(("option", "value"), [("nodes", 0), ("threshold", -0.1), ("depth", 0)])
def test_impossible_options_are_refused(option, value):
    with pytest.raises(InputError, match=f"{option} is {value}; allowed: "):
        opt_tree.Config(**{option: value})
