"""Speculative contrastive decoding: the law of contrastive decoding by its formula and through its method, and who is called."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import treewright
from treewright import laws
from treewright.core.errors import UnknownOption
from treewright.core.request import Request, Sampling
from treewright.models.tables import Table
from treewright.testing.bench import Bench, Setting, parts_of
from treewright.testing.enumerate import Case, exact_law, total_variation

EXPERT = Table(4, seed=10, sharpness=1.5)
AMATEUR = Table(4, seed=1, like=EXPERT, likeness=0.5)
PROMPTS = ((1, 0), (2,), (3, 1, 2))
OPTIONS = [{"beta": 0.5, "alpha": 0.1}, {"beta": 1.5, "alpha": 0.3}, {"form": "original", "alpha": 0.2}]


def softmax(scores):
    weights = np.exp(scores - scores.max())
    return weights / weights.sum()


def contrastive(prefix, temperature, beta=0.5, alpha=0.1, form="reasoning"):
    """The paper's law, written from its formula."""
    expert, amateur = softmax(EXPERT.logits(prefix)), softmax(AMATEUR.logits(prefix))
    with np.errstate(divide="ignore"):
        scores = np.log(expert) - np.log(amateur) if form == "original" else (1 + beta) * np.log(expert) - beta * np.log(amateur)
    return softmax(np.where(expert >= alpha * expert.max(), scores, -np.inf) / temperature)


def case_of(method, options, sampling, row=0, tokens=2):
    make, _ = parts_of(method, options)
    return Case(Request(PROMPTS, max_new_tokens=tokens, sampling=sampling), {"target": EXPERT, "amateur": AMATEUR}, make, row)


@pytest.mark.parametrize("temperature", [1.0, 0.6])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_the_law_is_the_papers_contrastive_law(options, temperature):
    found = exact_law(case_of("scd", {"tokens": 2, **options}, Sampling(temperature)))
    expected = {}
    for text in itertools.product(range(4), repeat=2):
        prefix, expected[text] = list(PROMPTS[0]), 1.0
        for token in text:
            expected[text] *= contrastive(prefix, temperature, **options)[token]
            prefix.append(token)
    assert total_variation(found, expected) < 1e-12
    plain = exact_law(case_of("plain", {}, Sampling(temperature)))
    assert total_variation(found, plain) > 0.1


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("row", [0, 1, 2])
def test_it_is_contrastive_decoding_in_law_and_token_for_token_at_temperature_0(options, row):
    sampling = Sampling(0.8, top_p=0.9, repetition_penalty=1.2)
    ours = exact_law(case_of("scd", {"tokens": 3, **options}, sampling, row))
    assert total_variation(ours, exact_law(case_of("contrastive_decoding", options, sampling, row))) < 1e-9
    greedy = exact_law(case_of("scd", {"tokens": 3, **options}, Sampling(), row, tokens=12))
    assert greedy == exact_law(case_of("contrastive_decoding", options, Sampling(), row, tokens=12))


def test_it_keeps_its_own_contrastive_law_on_the_whole_bench():
    """The definition of the law steers by the method's own parts; constraint, penalties, warpers and stops come on top."""
    report = laws.lossless("scd", {"tokens": 2})
    assert report.worst < 1e-9 and report.total("accepted") > 0


def test_beta_and_alpha_zero_are_speculative_sampling():
    sampling, options = Sampling(1.0), {"tokens": 2}
    ours = exact_law(case_of("scd", {**options, "beta": 0.0, "alpha": 0.0}, sampling))
    assert total_variation(ours, exact_law(case_of("plain", {}, sampling))) < 1e-12
    make, _ = parts_of("speculative_sampling", options)
    models = {"target": EXPERT, "draft": AMATEUR}
    theirs = Case(Request(PROMPTS, max_new_tokens=9, seed=4, sampling=sampling), models, make)
    mine = case_of("scd", {**options, "beta": 0.0, "alpha": 0.0}, sampling, tokens=9)
    for seed in range(5):
        chance = treewright.core.randomness.Keyed(seed)
        assert mine.learn(chance, {}) == theirs.learn(chance, {})


def test_rows_of_a_ragged_batch_are_those_rows_alone():
    assert laws.row_independent("scd").worst == 0


def test_an_amateur_call_for_each_draft_and_one_for_the_law_behind_the_last():
    engine = case_of("scd", {"tokens": 3}, Sampling(1.0), tokens=30).open(treewright.core.randomness.Keyed(1), {})
    for _ in engine.run():
        pass
    scored = [call.model for call in engine.traces[0, 0].calls if call.kind == "score"]
    assert scored[:5] == ["amateur", "amateur", "amateur", "target", "amateur"]
    assert sum(len(step.accepted) for step in engine.traces[0, 0].steps) > 0


def test_steering_of_others_goes_on_top():
    make, roles = parts_of("scd+momentum", {"tokens": 2})
    case = Bench(make, roles).case(Setting("two", Sampling(1.0), fenced=False))
    assert total_variation(exact_law(case), laws.plain_law(case)) < 1e-9


@pytest.mark.parametrize("options", [{"tokens": 0}, {"alpha": 1.5}, {"amateur_temperature": 0.0}, {"form": "other"}], ids=str)
def test_bad_options_are_refused(options):
    with pytest.raises(UnknownOption, match=next(iter(options))):
        from treewright.api import build_parts
        from treewright.core.recipe import Recipe

        build_parts(Recipe.of("scd", options))
