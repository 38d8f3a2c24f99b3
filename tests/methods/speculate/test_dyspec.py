"""DySpec: its trees against a plain search over slots, what its values mean, and the law of its text."""

from __future__ import annotations

import pytest

from treewright.core.errors import InputError
from treewright.core.request import Budget, Sampling
from treewright.core.roles import Parts
from treewright.methods.speculate import dyspec
from treewright.models.tables import Table
from treewright.parts.verify.sample_then_match import SampleThenMatch
from treewright.testing import laws
from treewright.testing.reports import LawBroken

TARGET = Table(4, seed=1)
DRAFT = Table(4, seed=2, like=TARGET, likeness=0.4)
PROMPTS = [(1, 0, 2), (3,), (2, 2, 1, 0, 1)]


@pytest.mark.parametrize(
    ("options", "vocabulary"),
    [({"budget": 2}, 4), ({"budget": 3}, 3), ({"threshold": 0.4}, 3), ({"budget": 2, "threshold": 0.2}, 3)],
)
def test_joint_law_of_two_tokens_is_the_targets(options, vocabulary, off_the_law):
    assert off_the_law("dyspec", options, Table(vocabulary, seed=10), Table(vocabulary, seed=1)) < 1e-12


def test_a_wrong_law_of_the_drafts_is_seen(spoiled):
    with pytest.raises(LawBroken):
        laws.lossless("dyspec", {"budget": 2}, alter=spoiled)


def slots(softmax, draft, prompt, paths, temperature: float = 1.0) -> list[tuple[float, float]]:
    """(value, probability of the draw among what was left) of each drawn node, from the order of its siblings alone."""
    found, left = [], dict.fromkeys([(), *paths], 1.0)
    worth = {(): 1.0}
    for path in paths:
        above = path[:-1]
        law = softmax(draft.logits((*prompt, *above)) / temperature)
        value, share = worth[above] * left[above], law[path[-1]] / left[above]
        found.append((value, share))
        worth[path] = value * share
        left[above] -= law[path[-1]]
    return found


def greedy_slots(softmax, prompt, depth: int) -> dict[tuple[int, ...], float]:
    """The value of every slot down to a depth, most probable children first."""
    values, frontier = {}, {(): 1.0}
    for _ in range(depth):
        below = {}
        for path, reach in frontier.items():
            law = softmax(DRAFT.logits((*prompt, *path)))
            left = 1.0
            for token in sorted(range(4), key=lambda token: -law[token]):
                values[(*path, token)] = reach * left
                below[(*path, token)] = reach * law[token]
                left -= law[token]
        frontier = below
    return values


@pytest.mark.parametrize("budget", [1, 2, 5, 9, 14])
def test_a_budget_takes_the_best_slots_of_all(budget, first_forest, paths_of, softmax):
    forest = first_forest("dyspec", {"budget": budget}, TARGET, DRAFT, PROMPTS, max_new_tokens=7)
    for row, prompt in enumerate(PROMPTS):
        values = greedy_slots(softmax, prompt, 6)
        # A last sibling is certain, so the slot below it is worth as much as its own; the draw comes first.
        best = sorted(values, key=lambda path: (-round(values[path], 9), len(path)))[:budget]
        assert set(paths_of(forest, row)) == set(best)


@pytest.mark.parametrize("threshold", [0.5, 0.2, 0.05])
def test_a_threshold_takes_every_slot_that_is_worth_it(threshold, first_forest, paths_of, softmax):
    forest = first_forest("dyspec", {"threshold": threshold}, TARGET, DRAFT, PROMPTS, max_new_tokens=7)
    for row, prompt in enumerate(PROMPTS):
        values = greedy_slots(softmax, prompt, 6)
        assert set(paths_of(forest, row)) == {path for path, value in values.items() if value >= threshold}


@pytest.mark.parametrize("seed", range(4))
def test_both_algorithms_draw_one_tree(seed, first_forest, paths_of, softmax):
    """The threshold is the value of the last slot that the budget paid for."""
    how = dict(temperature=1.0, seed=seed, max_new_tokens=30)
    target, draft = Table(9, seed=1), Table(9, seed=2)
    paths = paths_of(first_forest("dyspec", {"budget": 9}, target, draft, PROMPTS[:1], **how))
    least = min(value for value, _ in slots(softmax, draft, PROMPTS[0], paths))
    same = paths_of(first_forest("dyspec", {"threshold": least * 0.999999}, target, draft, PROMPTS[:1], **how))
    assert set(same) == set(paths) and len(paths) == 9


def test_values_are_the_chances_of_being_tried(decode, outcomes, softmax):
    """Where target and draft agree and draws are matched: tries are the sum of v, accepted tokens that of v r."""
    table, found = Table(3, seed=4), []

    def run(chance):
        config = dyspec.Config(budget=3)
        parts = Parts(propose=dyspec.DynamicTokenTree(config), verify=SampleThenMatch(), claims=4, drafts=7)
        decoded = decode(
            table, parts, [(1, 0)], None, table, randomness=chance, max_new_tokens=6, budget=Budget(model_calls=1),
            sampling=Sampling(temperature=1.0),
        )  # fmt: skip
        return decoded.trace().steps[0]

    for probability, step in outcomes(run):
        paths = [()]
        for token, parent in zip(step.token[1:], step.parent[1:], strict=True):
            paths.append((*paths[parent], token))
        tried = 0
        for column in [0, *step.accepted]:
            children = [child for child in range(1, len(paths)) if step.parent[child] == column]
            taken = [rank for rank, child in enumerate(children, 1) if child in step.accepted]
            tried += taken[0] if taken else len(children)
        values = slots(softmax, table, (1, 0), paths[1:])
        found.append((probability, tried, len(step.accepted), sum(v for v, _ in values), sum(v * r for v, r in values)))
    means = [sum(one[0] * one[place] for one in found) for place in range(1, 5)]
    assert sum(one[0] for one in found) == pytest.approx(1, abs=1e-12)
    assert means[0] == pytest.approx(means[2], abs=1e-12)
    assert means[1] == pytest.approx(means[3], abs=1e-12)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_the_target_as_its_own_draft_refuses_nothing(temperature, decode):
    """Exact rejection takes every first child."""
    decoded = decode(
        TARGET, "dyspec", PROMPTS, {"budget": 6}, TARGET, max_new_tokens=30, sampling=Sampling(temperature=temperature)
    )
    for step in decoded.trace().steps[:-1]:
        first = 0
        path = []
        while first in step.parent:
            first = step.parent.index(first)
            path.append(first)
        assert step.accepted == path


@pytest.mark.parametrize("options", [{"budget": 10}, {"threshold": 0.1}], ids=str)
def test_text_and_calls(options, decode, greedy_text):
    decoded = decode(TARGET, "dyspec", PROMPTS, options, DRAFT, max_new_tokens=30)
    assert decoded.tokens == [greedy_text(TARGET, prompt, 30) for prompt in PROMPTS]
    calls = [call.model for call in decoded.trace().calls if call.kind == "score"]
    assert 1 < calls.index("target") < 10
    assert decoded.accepted() > 20


def test_a_threshold_costs_one_call_for_each_level(decode):
    decoded = decode(TARGET, "dyspec", PROMPTS[:1], {"threshold": 0.1}, DRAFT, max_new_tokens=30)
    step = decoded.trace().steps[0]
    depth = [0] * len(step.token)
    for column, parent in enumerate(step.parent[1:], 1):
        depth[column] = depth[parent] + 1
    calls = [call.model for call in decoded.trace().calls if call.kind == "score"]
    assert calls.index("target") == max(depth)


@pytest.mark.parametrize("options", [{}, {"threshold": 0.001}], ids=str)
@pytest.mark.parametrize(("columns", "most"), [(7, 6), (2, 1), (1, 0)])
def test_limit_on_columns(options, columns, most, first_forest, paths_of):
    assert len(paths_of(first_forest("dyspec", options, TARGET, DRAFT, PROMPTS[:1], 1.0, columns=columns))) == most


def test_a_law_of_few_tokens_is_used_up(first_forest, paths_of):
    forest = first_forest("dyspec", {"budget": 40}, Table(2, seed=1), Table(2, seed=2), [(1, 0)], 1.0, max_new_tokens=4)
    assert sorted(paths_of(forest), key=lambda path: (len(path), path))[:6] == [(0,), (1,), (0, 0), (0, 1), (1, 0), (1, 1)]
    assert len(paths_of(forest)) == 2 + 4 + 8


@pytest.mark.parametrize("options", [{"budget": 7}, {"threshold": 0.15}], ids=str)
def test_rows_do_not_depend_on_their_neighbours(options, check_rows):
    check_rows("dyspec", options, TARGET, DRAFT)


@pytest.mark.parametrize("options", [{"budget": 10}, {"threshold": 0.1}], ids=str)
def test_real_models_write_their_greedy_text(options, check_on_llamas):
    check_on_llamas("dyspec", options)


@pytest.mark.parametrize(("option", "value"), [("budget", 0), ("threshold", -0.1), ("threshold", 1.5)])
def test_impossible_options_are_refused(option, value):
    with pytest.raises(InputError, match=f"{option} is {value}; allowed: "):
        dyspec.Config(**{option: value})
