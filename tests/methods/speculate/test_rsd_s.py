"""RSD-S: the law of its beams by enumeration and against the paper's Gumbel formula, and the law of its text."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest

from treewright.core.errors import InputError
from treewright.core.request import Budget, Sampling
from treewright.methods.speculate import rsd_s
from treewright.models.tables import Table
from treewright.testing import laws
from treewright.testing.reports import LawBroken

TARGET = Table(3, seed=10)
DRAFT = Table(3, seed=1)
PROMPT = (1, 0)


@pytest.mark.parametrize(("width", "depth", "vocabulary"), [(2, 1, 4), (1, 2, 3), (2, 2, 2), (3, 1, 3)])
def test_joint_law_of_two_tokens_is_the_targets(width, depth, vocabulary, off_the_law):
    target, draft = Table(vocabulary, seed=10), Table(vocabulary, seed=1)
    assert off_the_law("rsd_s", {"width": width, "depth": depth}, target, draft, room=2 + depth) < 1e-12


def test_a_wrong_law_of_the_drafts_is_seen(spoiled):
    with pytest.raises(LawBroken):
        laws.lossless("rsd_s", {"width": 2, "depth": 1}, alter=spoiled)


def test_a_tree_that_was_cut_after_it_was_drawn_is_seen(decode, off_the_law):
    """Leaving out the drawn nodes of small probability looks at what they are: the law breaks."""

    class Cut(rsd_s.StochasticBeams):
        def propose(self, round):
            super().propose(round)
            forest = round.forest
            for column in range(1, forest.columns):
                parent = int(forest.shape.parent[0, column])
                if forest.token[0, column] >= 0 and forest.q[parent][0][forest.token[0, column]] < 0.34:
                    forest.token[0, column] = -1

    config = rsd_s.Config(width=2, depth=1)
    parts = rsd_s.parts(config)
    parts.propose = Cut(config)
    assert off_the_law(parts, None, Table(3, seed=10), Table(3, seed=1)) > 0.01


def trees(decode, outcomes, width: int, depth: int, draft=DRAFT) -> dict[tuple[tuple[int, ...], ...], float]:
    """The law of the whole drafted tree, its paths in order of arrival level by level."""
    law: dict[tuple[tuple[int, ...], ...], float] = {}

    def run(chance):
        decoded = decode(
            TARGET, "rsd_s", [PROMPT], {"width": width, "depth": depth}, draft, randomness=chance, max_new_tokens=depth + 2,
            budget=Budget(model_calls=1), sampling=Sampling(temperature=1.0),
        )  # fmt: skip
        step = decoded.trace().steps[0]
        paths = [()]
        for token, parent in zip(step.token[1:], step.parent[1:], strict=True):
            paths.append((*paths[parent], token))
        return tuple(paths[1:])

    for probability, tree in outcomes(run):
        law[tree] = law.get(tree, 0.0) + probability
    return law


def sequences(softmax, draft, length: int) -> dict[tuple[int, ...], float]:
    chances = {}
    for text in itertools.product(range(draft.vocabulary), repeat=length):
        probability = 1.0
        for place, token in enumerate(text):
            probability *= softmax(draft.logits((*PROMPT, *text[:place])))[token]
        chances[text] = probability
    return chances


def test_beams_are_sequences_without_replacement(decode, outcomes, softmax):
    """At every level the ordered pair of beginnings (s, t) has probability Q(s) Q(t) / (1 - Q(s))."""
    law = trees(decode, outcomes, width=2, depth=2)
    assert sum(law.values()) == pytest.approx(1, abs=1e-12)
    for level in (1, 2):
        chances = sequences(softmax, DRAFT, level)
        pairs: dict[tuple[tuple[int, ...], ...], float] = {}
        for tree, probability in law.items():
            pair = tuple(path for path in tree if len(path) == level)
            pairs[pair] = pairs.get(pair, 0.0) + probability
        for s, t in itertools.permutations(chances, 2):
            assert pairs.get((s, t), 0.0) == pytest.approx(chances[s] * chances[t] / (1 - chances[s]), abs=1e-12), (s, t)


def gumbel_tree(random: np.random.Generator, softmax, width: int, depth: int) -> tuple[tuple[int, ...], ...]:
    """One tree by the paper: perturbed log-probabilities, the largest of each parent conditioned on the parent's own."""
    beam, tree = [((), 0.0, 0.0)], []
    for _ in range(depth):
        offered = []
        for path, log, key in beam:
            logs = log + np.log(softmax(DRAFT.logits((*PROMPT, *path))))
            noisy = logs + random.gumbel(size=len(logs))
            gap = key - noisy + np.log1p(-np.exp(np.minimum(noisy - noisy.max(), -1e-300)))
            keys = key - np.maximum(0, gap) - np.log1p(np.exp(-np.abs(gap)))
            offered += [((*path, token), logs[token], keys[token]) for token in range(len(logs))]
        beam = sorted(offered, key=lambda child: -child[2])[:width]
        tree += [path for path, _, _ in beam]
    return tuple(tree)


def test_trees_have_the_law_of_the_papers_formula(decode, outcomes, softmax):
    """Level 1 and 2 together, order included: 8000 trees by Gumbel noise lie as near to the enumerated law as a sample can."""
    law, random, count = trees(decode, outcomes, width=2, depth=2), np.random.default_rng(0), 8000
    with np.errstate(divide="ignore"):
        drawn = Counter(gumbel_tree(random, softmax, 2, 2) for _ in range(count))
    assert set(drawn) <= set(law)
    deviation = [
        (drawn[tree] - count * law[tree]) / np.sqrt(count * law[tree] * (1 - law[tree])) for tree in law if law[tree] > 1e-3
    ]
    assert len(deviation) > 30
    assert max(map(abs, deviation)) < 4.5
    assert np.mean(np.square(deviation)) == pytest.approx(1, abs=0.5)


def test_a_certain_draft_does_no_harm(first_forest, paths_of):
    """One sequence holds all but 1e-30 of the mass; the others still come without replacement, and nothing is not a number."""
    certain = Table(5, seed=3, sharpness=40.0)
    with np.errstate(all="raise", under="ignore"):
        forest = first_forest("rsd_s", {"width": 3, "depth": 4}, Table(5, seed=1), certain, [PROMPT], 1.0)
    paths = paths_of(forest)
    assert len(set(paths)) == len(paths) and max(map(len, paths)) == 4
    assert all(np.isfinite(law).all() for law in forest.q.values())


def test_more_beams_than_sequences(first_forest, paths_of):
    forest = first_forest("rsd_s", {"width": 5, "depth": 2}, TARGET, DRAFT, [PROMPT], 1.0)
    paths = paths_of(forest)
    assert sorted(path for path in paths if len(path) == 1) == [(0,), (1,), (2,)]
    assert len({path for path in paths if len(path) == 2}) == 5


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_one_beam_is_a_chain_and_the_target_accepts_its_own(temperature, decode):
    decoded = decode(
        TARGET, "rsd_s", [PROMPT], {"width": 1, "depth": 3}, TARGET, max_new_tokens=16, sampling=Sampling(temperature=temperature)
    )
    assert [len(step.emitted) for step in decoded.trace().steps] == [4] * 4


def test_greedy_beams_are_the_most_probable_beginnings(first_forest, paths_of, softmax):
    paths = paths_of(first_forest("rsd_s", {"width": 3, "depth": 2}, TARGET, DRAFT, [PROMPT]))
    chances = sequences(softmax, DRAFT, 2)
    first = sorted(range(3), key=lambda token: -softmax(DRAFT.logits(PROMPT))[token])
    assert paths[:3] == [(token,) for token in first]
    assert paths[3:] == sorted(chances, key=lambda text: -chances[text])[:3]


@pytest.mark.parametrize(("columns", "levels"), [(None, [2, 2, 2]), (6, [2, 2]), (3, [2]), (2, [1]), (1, [])])
def test_limit_on_columns(columns, levels, first_forest, paths_of):
    options = {"width": 2, "depth": 3}
    paths = paths_of(first_forest("rsd_s", options, TARGET, DRAFT, [PROMPT], 1.0, columns=columns))
    assert [sum(len(path) == depth for path in paths) for depth in range(1, len(levels) + 1)] == levels
    assert len(paths) == sum(levels)


def test_rows_do_not_depend_on_their_neighbours(check_rows):
    check_rows("rsd_s", {"width": 2, "depth": 3}, TARGET, DRAFT)


def test_one_draft_call_for_each_level(decode):
    decoded = decode(TARGET, "rsd_s", [PROMPT], {"width": 2, "depth": 2}, DRAFT, max_new_tokens=20)
    assert [call.model for call in decoded.trace().calls if call.kind == "score"][:6] == ["draft", "draft", "target"] * 2


def test_real_models_write_their_greedy_text(check_on_llamas):
    check_on_llamas("rsd_s", {"width": 3, "depth": 3})


@pytest.mark.parametrize("option", ["width", "depth"])
def test_impossible_options_are_refused(option):
    with pytest.raises(InputError, match=f"{option} is 0; allowed: an integer >= 1"):
        rsd_s.Config(**{option: 0})
