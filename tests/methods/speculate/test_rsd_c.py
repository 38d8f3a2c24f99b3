"""RSD-C: the form and the law of its trees, and the law of its text by going through all outcomes."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from treewright.core.claims import Law
from treewright.core.errors import InputError
from treewright.core.request import Budget, Sampling
from treewright.methods.speculate import rsd_c
from treewright.models.tables import Table
from treewright.testing import laws
from treewright.testing.reports import LawBroken

TARGET = Table(4, seed=10)
DRAFT = Table(4, seed=1)


@pytest.mark.parametrize("branching", [(2,), (3,), (1, 2)])
def test_joint_law_of_two_tokens_is_the_targets(branching, off_the_law):
    target, draft = Table(3, seed=10), Table(3, seed=1)
    assert off_the_law("rsd_c", {"branching": branching}, target, draft, room=2 + len(branching)) < 1e-12


def test_a_wrong_law_of_the_drafts_is_seen(spoiled):
    with pytest.raises(LawBroken):
        laws.lossless("rsd_c", {"branching": (2,)}, alter=spoiled)


def test_ordered_siblings_are_draws_without_replacement(decode, outcomes, softmax):
    """The ordered triple (x, y, z) has probability q(x) q(y) / (1 - q(x)) q(z) / (1 - q(x) - q(y))."""
    law: dict[tuple[int, ...], float] = {}

    def run(chance):
        decoded = decode(
            TARGET, "rsd_c", [(1, 0)], {"branching": (3,)}, DRAFT, randomness=chance, max_new_tokens=5,
            budget=Budget(model_calls=1), sampling=Sampling(temperature=1.0),
        )  # fmt: skip
        return tuple(decoded.trace().steps[0].token[1:])

    for probability, triple in outcomes(run):
        law[triple] = law.get(triple, 0.0) + probability
    q = softmax(DRAFT.logits((1, 0)))
    for x, y, z in itertools.permutations(range(4), 3):
        assert law[x, y, z] == pytest.approx(q[x] * q[y] / (1 - q[x]) * q[z] / (1 - q[x] - q[y]), abs=1e-12)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_levels_have_constant_branching(temperature, first_forest, paths_of):
    forest = first_forest("rsd_c", {"branching": (2, 3, 1)}, TARGET, DRAFT, [(1, 0), (3,)], temperature)
    for row in range(2):
        paths = paths_of(forest, row)
        assert [sum(len(path) == depth for path in paths) for depth in (1, 2, 3)] == [2, 6, 6]
        assert len(set(paths)) == len(paths)
    assert set(forest.law[1:]) <= ({Law.DELTA} if temperature == 0 else {Law.SWOR, Law.SINGLE})


def test_a_chain_is_speculative_sampling(decode):
    settings = dict(max_new_tokens=24, sampling=Sampling(temperature=1.0), seed=4)
    prompts = [(1, 0), (3,)]
    tree = decode(TARGET, "rsd_c", prompts, {"branching": (1, 1, 1)}, DRAFT, **settings)
    chain = decode(TARGET, "speculative_sampling", prompts, {"tokens": 3}, DRAFT, **settings)
    assert tree.tokens == chain.tokens
    assert tree.trace().model_calls == chain.trace().model_calls


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_the_target_as_its_own_draft_accepts_a_whole_path(temperature, decode):
    decoded = decode(
        TARGET, "rsd_c", [(1, 0)], {"branching": (2, 1, 1)}, TARGET, max_new_tokens=16, sampling=Sampling(temperature=temperature)
    )
    assert [len(step.emitted) for step in decoded.trace().steps] == [4] * 4


def test_rows_do_not_depend_on_their_neighbours(check_rows):
    check_rows("rsd_c", {"branching": (2, 2)}, TARGET, DRAFT)


def test_one_draft_call_for_each_level(decode):
    decoded = decode(TARGET, "rsd_c", [(1, 0)], {"branching": (2, 2)}, DRAFT, max_new_tokens=20)
    assert [call.model for call in decoded.trace().calls if call.kind == "score"][:6] == ["draft", "draft", "target"] * 2


def test_real_models_write_their_greedy_text(check_on_llamas):
    check_on_llamas("rsd_c", {"branching": (2, 2)})


@pytest.mark.parametrize("branching", [(), (2, 0)])
def test_impossible_branching_is_refused(branching):
    with pytest.raises(InputError, match=r"branching is .*; allowed: a list of integers >= 1"):
        rsd_c.Config(branching=branching)


def test_cousins_do_not_share_noise(first_forest, softmax):
    """A law that is the same everywhere: first children of two siblings are as often equal as two draws are."""

    class Everywhere(Table):
        def logits(self, prefix):
            return np.array([1.0, 0.5, 0.0, -0.5])

    draft, count = Everywhere(4, seed=0), 250
    equal = 0
    for seed in range(count):
        token = first_forest("rsd_c", {"branching": (2, 2)}, TARGET, draft, [(1, 0)], 1.0, seed=seed).token[0]
        equal += token[3] == token[5]
    chance = float((softmax(draft.logits(())) ** 2).sum())
    assert equal / count == pytest.approx(chance, abs=4 * np.sqrt(chance * (1 - chance) / count))
