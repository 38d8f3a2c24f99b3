"""Stochastic beam search: draws without replacement, exact weights, the order of arrival."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

import treewright
from treewright import laws
from treewright.core.errors import InputError
from treewright.core.randomness import Keyed
from treewright.core.request import Sampling
from treewright.core.roles import Parts
from treewright.methods.search.stochastic_beam import log_weight
from treewright.models.loading import load
from treewright.models.tables import Table
from treewright.testing.bench import Bench, Setting, parts_of


def test_one_text_is_a_plain_sample_and_three_are_drawn_in_order():
    assert laws.without_replacement("stochastic_beam", texts=1, draws=400).total("outcomes") == 800
    assert laws.without_replacement("stochastic_beam", texts=3, draws=400, seed=2).worst < 5


def test_asking_for_everything_gives_every_text_with_its_probability():
    """With no text left over there is no threshold, so weights are probabilities and sum to one."""
    table = Table(3, 4)
    result = treewright.generate(load(table), [1], "stochastic_beam", {"beams": 12}, max_new_tokens=2, n=12, stop_ids=[0])
    assert len({tuple(sample.tokens) for sample in result.samples}) == len(result.samples) == 7
    assert sum(math.exp(sample.log_weight) for sample in result.samples) == pytest.approx(1.0, abs=1e-12)


class Trap:
    """A first token 1 leads nowhere."""

    def mask(self, row, continuation):
        return np.full(3, not (len(continuation) and continuation[0] == 1))


def test_weights_stay_right_where_a_constraint_leads_into_dead_ends():
    make, roles = parts_of("stochastic_beam", None)
    setting = Setting("trap", Sampling(0.0), row=0, tokens=2, vocabulary=3, fenced=False)
    case = Bench(lambda: make().join(Parts(constrain=(Trap(),))), roles).case(setting, 2)
    case = replace(case, request=replace(case.request, prompts=((1,),) * 900, samples=2, batch_rows=300))
    drawn = case.answers(Keyed(3))
    logits = case.models["target"].logits

    def probability(text):
        steps = (text[0], logits([1])), (text[1], logits([1, text[0]]))
        return math.prod(float(np.exp(z[token]) / np.exp(z).sum()) for token, z in steps)

    for text in ((0, 0), (0, 1), (0, 2), (2, 0), (2, 1), (2, 2)):
        weights = np.array([sum(math.exp(a.log_weight) for a in answers if tuple(a.tokens) == text) for answers in drawn])
        assert abs(weights.mean() - probability(text)) < 4 * weights.std() / len(weights) ** 0.5
    assert {a.finish_reason for answers in drawn for a in answers} <= {"length", "dead_end"}


def test_texts_differ_and_seeds_repeat(search, answers, tiny):
    model = tiny("llama", "float64")
    results = search(model, "stochastic_beam", n=4, temperature=1.0, seed=3)
    for result in results:
        assert len({tuple(sample.tokens) for sample in result.samples}) == 4
    again = search(model, "stochastic_beam", n=4, temperature=1.0, seed=3, batch_rows=1)
    assert [answers(result) for result in results] == [answers(result) for result in again]
    assert answers(results[0]) != answers(search(model, "stochastic_beam", n=4, temperature=1.0, seed=4)[0])


def test_the_weight_of_an_improbable_text_is_finite():
    """1 - exp(-p t) is p t where p is too small for a double, so the weight is 1 / t."""
    assert log_weight(-2000.0, 3.0) == pytest.approx(-math.log(3.0))
    assert log_weight(-29.9, 1.0) == pytest.approx(0.0, abs=1e-12)
    assert log_weight(0.0, 2.0) == pytest.approx(-math.log(1 - math.exp(-2.0)))
    assert log_weight(-1.5, math.inf) == -1.5


def test_bad_options_are_refused(search):
    with pytest.raises(InputError, match="beams' is 0"):
        search(1, "stochastic_beam", {"beams": 0})


def test_a_text_that_rests_when_the_budget_is_spent_weighs_what_stands_of_it():
    """Its last token is drawn and not written, so the token's probability is not in the weight either."""
    table, resting = Table(3, 4), 0
    for calls in (2, 3, 4):
        settings = {"max_new_tokens": 6, "n": 6, "stop_ids": [0], "budget": {"model_calls": calls}}
        result = treewright.generate(load(table), [1], "stochastic_beam", {"beams": 6}, **settings)
        for sample in result.samples:
            laws_of = [table.logits([1, *sample.tokens[:place]]) for place in range(len(sample.tokens))]
            logs = [float(z[token] - np.log(np.exp(z).sum())) for z, token in zip(laws_of, sample.tokens, strict=True)]
            assert sample.finish_reason == "budget" and sample.log_weight == pytest.approx(sum(logs), abs=1e-12)
            resting += len(sample.tokens) < calls
    assert resting > 3
