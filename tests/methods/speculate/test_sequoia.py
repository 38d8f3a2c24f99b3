"""Sequoia: the tree it draws, what it learns of acceptance, the profile, and the law of its text."""

from __future__ import annotations

import json

import numpy as np
import pytest

from treewright.core.errors import InputError
from treewright.core.request import Budget, Sampling
from treewright.methods.speculate import sequoia
from treewright.models.tables import Table
from treewright.parts.propose.ordered_trees import TreeTable
from treewright.testing import laws
from treewright.testing.reports import LawBroken

TARGET = Table(4, seed=1)
DRAFT = Table(4, seed=2, like=TARGET, likeness=0.4)
PROMPTS = [(1, 0, 2), (3,), (2, 2, 1, 0, 1)]


def plan_of(memories) -> sequoia.Plan:
    return next(plan for key, plan in memories.items() if key[0] == "sequoia")


@pytest.mark.parametrize(("options", "vocabulary"), [({"nodes": 2, "depth": 1}, 4), ({"nodes": 3, "depth": 2}, 3)])
def test_joint_law_of_two_tokens_is_the_targets(options, vocabulary, off_the_law):
    assert off_the_law("sequoia", options, Table(vocabulary, seed=10), Table(vocabulary, seed=1)) < 1e-12


def test_a_wrong_law_of_the_drafts_is_seen(spoiled):
    with pytest.raises(LawBroken):
        laws.lossless("sequoia", {"nodes": 2, "depth": 1}, alter=spoiled)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize(("nodes", "depth"), [(12, 4), (5, 2), (1, 3)])
def test_the_tree_is_the_best_of_its_size(nodes, depth, temperature, first_forest):
    forest = first_forest(
        "sequoia", {"nodes": nodes, "depth": depth}, Table(20, seed=1), Table(20, seed=2), [(1, 0)], temperature
    )
    levels = TreeTable(sequoia.PRIOR, nodes + 1, depth + 1).best(nodes + 1, depth + 1)
    children = forest.shape.children(0)
    assert forest.columns == nodes + 1
    assert [len(below) for below in children][: sum(map(len, levels))] == [count for counts in levels for count in counts]


def test_every_claim_has_noise_of_its_own(tmp_path, decode, outcomes):
    """Two siblings with children of their own: the law of all draws is a product, so no two of them share chance."""
    found: dict[object, float] = {}
    file = tmp_path / "profile.json"
    file.write_text(json.dumps({"acceptance": [0.5, 0.4]}))

    def run(chance):
        options = {"nodes": 4, "depth": 2, "profile": str(file)}
        decoded = decode(
            Table(2, seed=1), "sequoia", [(1, 0)], options, Table(2, seed=5), randomness=chance, max_new_tokens=6,
            budget=Budget(model_calls=1), sampling=Sampling(temperature=1.0),
        )  # fmt: skip
        step = decoded.trace().steps[0]
        return tuple(step.token[1:]), tuple(step.parent[1:])

    for probability, tree in outcomes(run):
        found[tree] = found.get(tree, 0.0) + probability
    assert sum(found.values()) == pytest.approx(1, abs=1e-12)
    draft, expected = Table(2, seed=5), {}
    for tokens, parents in found:
        chance, used, paths = 1.0, {}, [()]
        for token, parent in zip(tokens, parents, strict=True):
            law = np.exp(draft.logits((1, 0, *paths[parent])))
            law /= law.sum()
            left = 1 - sum(law[before] for before in used.get(parent, []))
            chance *= law[token] / left
            used.setdefault(parent, []).append(token)
            paths.append((*paths[parent], token))
        expected[tokens, parents] = chance
    assert found == pytest.approx(expected, abs=1e-12)


def test_acceptance_is_learned_as_it_is(decode):
    """Laws that are the same everywhere: the first child is accepted with probability sum min(p, q), and the second with what
    two rejections without replacement leave."""

    class Independent(Table):
        def logits(self, prefix):
            return np.log(np.array(self.law))

    target, draft = Independent(3, seed=0), Independent(3, seed=0)
    target.law, draft.law = (0.5, 0.3, 0.2), (0.2, 0.2, 0.6)
    memories: dict[object, object] = {}
    decode(
        target, "sequoia", [(1, 0)] * 48, {"nodes": 4, "depth": 2}, draft, memories=memories, max_new_tokens=40,
        sampling=Sampling(temperature=1.0), seed=1,
    )  # fmt: skip
    plan = plan_of(memories)
    p, q, second = np.array(target.law), np.array(draft.law), 0.0
    for x in range(3):
        left, again = np.maximum(p - q, 0), q.copy()
        again[x] = 0
        refused = q[x] * max(0.0, 1 - p[x] / q[x])
        second += refused * float(np.minimum(left / left.sum(), again / again.sum()).sum())
    assert plan.acceptance.seen > 1200
    assert plan.acceptance.vector()[:2] == pytest.approx([np.minimum(p, q).sum(), second], abs=0.04)


def test_lessons_double_and_change_the_tree(decode, watcher):
    memories: dict[object, object] = {}
    trees = watcher(lambda outcome: tuple(outcome.round.forest.shape.parent[0].tolist()))
    decode(TARGET, "sequoia", [(1, 0)], {"nodes": 5, "depth": 5}, TARGET, [trees], memories=memories, max_new_tokens=300)
    plan = plan_of(memories)
    assert plan.acceptance.seen >= plan.next_lesson / 2 > sequoia.FIRST_LESSON
    # A draft that is never wrong teaches that a chain is best.
    assert trees.seen[0] != tuple(range(-1, 5))
    assert trees.seen[-10] == tuple(range(-1, 5))


def test_a_profile_that_was_rewritten_has_a_plan_of_its_own(tmp_path, decode):
    memories: dict[object, object] = {}
    file = tmp_path / "profile.json"
    for vector in ([0.9], [0.3, 0.3]):
        file.write_text(json.dumps({"acceptance": vector}))
        options = {"nodes": 4, "learn": False, "profile": str(file)}
        decode(TARGET, "sequoia", [(1, 0)], options, DRAFT, memories=memories, max_new_tokens=8)
    assert [plan.acceptance.vector()[:2].tolist() for plan in memories.values()] == [[0.9], [0.3, 0.3]]


@pytest.mark.parametrize("learn", [True, False])
def test_settings_have_vectors_of_their_own_and_learning_can_be_off(learn, decode):
    memories: dict[object, object] = {}
    for temperature in (0.0, 1.0):
        options = {"nodes": 4, "learn": learn}
        decode(TARGET, "sequoia", [(1, 0)], options, DRAFT, memories=memories, max_new_tokens=20, sampling=Sampling(temperature))
    plans = list(memories.values())
    assert len(plans) == 2 and all((plan.acceptance.seen > 0) == learn for plan in plans)


def test_only_what_was_decided_is_learned(decode, watcher):
    """A stop cuts the text inside the accepted path: what verification did after it is not told, so it is not learned."""
    cut = 0
    for stop in range(4):
        told = watcher(lambda outcome: (sequoia.tries(outcome, 0), outcome.verdict.paths[0], outcome.verdict.extra[0]))
        decode(TARGET, "sequoia", [(1, 0)], {"nodes": 3, "depth": 3}, TARGET, [told], max_new_tokens=40, stop_ids=(stop,))
        for tries, path, extra in told.seen:
            assert [accepted for _, accepted in tries][: len(path)] == [True] * len(path)
            assert len(tries) <= len(path) + (extra >= 0)
            cut += extra < 0
    assert cut > 0


def test_times_choose_size_and_depth(tmp_path, first_forest):
    file = tmp_path / "profile.json"
    shapes = {}
    for draft_seconds in (0.0, 0.4, 90.0):
        times = {"1": 1.0, "4": 1.01, "8": 1.02, "16": 9.0}
        file.write_text(json.dumps({"acceptance": [0.6, 0.2], "draft_seconds": draft_seconds, "target_seconds": times}))
        forest = first_forest("sequoia", {"nodes": 20, "depth": 5, "profile": str(file)}, TARGET, DRAFT, [(1, 0)])
        shapes[draft_seconds] = forest.columns, int(forest.shape.depth.max())
    assert shapes[0.0] == (8, 4)
    assert 0 < shapes[0.4][1] < 4
    assert shapes[90.0] == (1, 0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"cannot be read .*; give a JSON file such as"),
        ("[1]", r"cannot be read .*; give a JSON file such as"),
        ('{"accept": [0.5]}', "profile's field is accept; allowed: acceptance, draft_seconds, target_seconds"),
        ('{"acceptance": [0.9, 0.2]}', "profile's acceptance is .*; allowed: probabilities >= 0 whose sum is at most 1"),
        ('{"acceptance": []}', "profile's acceptance is"),
        ('{"draft_seconds": -1}', "profile's seconds is"),
    ],
)
def test_an_impossible_profile_is_refused(text, message, tmp_path):
    file = tmp_path / "profile.json"
    file.write_text(text)
    with pytest.raises(InputError, match=message):
        sequoia.parts(sequoia.Config(profile=str(file)))


def test_a_missing_profile_is_named(tmp_path):
    with pytest.raises(InputError, match=r"nowhere.json cannot be read"):
        sequoia.parts(sequoia.Config(profile=str(tmp_path / "nowhere.json")))


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_the_target_as_its_own_draft_refuses_nothing(temperature, decode):
    options = {"nodes": 6, "depth": 3}
    decoded = decode(TARGET, "sequoia", PROMPTS, options, TARGET, max_new_tokens=13, sampling=Sampling(temperature=temperature))
    assert [len(step.emitted) for step in decoded.trace().steps] == [4, 4, 4, 1]


def test_text_and_calls(decode, greedy_text):
    decoded = decode(TARGET, "sequoia", PROMPTS, {"nodes": 8, "depth": 3}, DRAFT, max_new_tokens=30)
    assert decoded.tokens == [greedy_text(TARGET, prompt, 30) for prompt in PROMPTS]
    calls = [call.model for call in decoded.trace().calls if call.kind == "score"]
    assert calls[:8] == ["draft", "draft", "draft", "target"] * 2
    assert decoded.accepted() > 20


@pytest.mark.parametrize(("columns", "most"), [(7, 7), (2, 2), (1, 1)])
def test_limit_on_columns(columns, most, first_forest):
    assert first_forest("sequoia", {}, Table(20, seed=1), Table(20, seed=2), [(1, 0)], 1.0, columns=columns).columns == most


def test_rows_do_not_depend_on_their_neighbours(check_rows):
    check_rows("sequoia", {"nodes": 6, "depth": 3}, TARGET, DRAFT)


def test_real_models_write_their_greedy_text(check_on_llamas):
    check_on_llamas("sequoia", {"nodes": 10, "depth": 4})


@pytest.mark.parametrize("option", ["nodes", "depth"])
def test_impossible_options_are_refused(option):
    with pytest.raises(InputError, match=f"{option} is 0; allowed: an integer >= 1"):
        sequoia.Config(**{option: 0})
