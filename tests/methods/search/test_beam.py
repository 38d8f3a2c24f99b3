"""Beam search against transformers' own, against enumeration, and where rows end, wait, or have nowhere to go."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import treewright
from treewright import laws
from treewright.core.errors import CompositionError, InputError
from treewright.core.randomness import Keyed
from treewright.core.request import Sampling
from treewright.core.roles import Parts
from treewright.models.loading import load
from treewright.models.tables import Table
from treewright.testing.bench import Bench, Setting, parts_of

ENDS = (5, 9, 13, 20, 27)


def transformers_beams(model, prompt, beams, new_tokens, **settings):
    """Tokens and scores of transformers' own beam search for one prompt, padding cut off."""
    import torch

    out = model.generate(
        torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt), dtype=torch.long), max_new_tokens=new_tokens,
        do_sample=False, num_beams=beams, num_return_sequences=beams, return_dict_in_generate=True, output_scores=True,
        **settings,
    )  # fmt: skip
    texts = out.sequences[:, len(prompt) :].tolist()
    cut = [next((place + 1 for place, token in enumerate(text) if token in ENDS), len(text)) for text in texts]
    return [text[:end] for text, end in zip(texts, cut, strict=True)], out.sequences_scores.tolist()


@pytest.mark.parametrize("early_stopping", [False, True, "never"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_token_for_token_what_transformers_finds(search, tiny, family, dtype, early_stopping):
    model, ended = tiny(family, dtype), 0
    prompts = [[3], [7, 1, 30, 12], [2, 2, 8, 25, 14, 6, 11]]
    for beams, penalty in ((2, 1.0), (3, 0.0), (4, -0.5), (4, 2.0)):
        options = {"beams": beams, "length_penalty": penalty, "early_stopping": early_stopping}
        for prompt, result in zip(prompts, search(model, "beam", options, prompts, n=beams, max_new_tokens=9), strict=True):
            texts, scores = transformers_beams(
                model.model, prompt, beams, 9, length_penalty=penalty, early_stopping=early_stopping
            )  # fmt: skip
            assert [sample.tokens for sample in result.samples] == texts
            ours = [sample.log_weight / len(sample.tokens) ** penalty for sample in result.samples]
            assert ours == pytest.approx(scores, abs=1e-4)
            ended += sum(sample.finish_reason == "stop" for sample in result.samples)
    assert ended > 5


@pytest.mark.parametrize("options", [{"beams": 1}, {"beams": 2, "early_stopping": True}, {"beams": 7, "length_penalty": -1.0}])
def test_equals_beam_search_by_definition(options):
    assert laws.equals_beam("beam", options).total("outcomes") > 20


def test_wide_enough_beams_find_the_most_probable_text(search):
    """With as many beams as there are beginnings nothing is pruned, so the answer is that of full enumeration."""
    table = Table(3, 5)
    result = treewright.generate(load(table), [1, 2], "beam", {"beams": 27, "length_penalty": 0.0}, max_new_tokens=3, n=27)

    def log_probability(text):
        logits = [table.logits([1, 2, *text[:place]]) for place in range(3)]
        return sum(float(z[token] - np.log(np.exp(z).sum())) for z, token in zip(logits, text, strict=True))

    ranked = sorted(itertools.product(range(3), repeat=3), key=log_probability, reverse=True)
    assert [tuple(sample.tokens) for sample in result.samples] == ranked
    assert [sample.log_weight for sample in result.samples] == pytest.approx([log_probability(text) for text in ranked])


def test_a_batch_is_its_rows_alone_and_may_wait(search, answers, tiny):
    model = tiny("llama", "float64")
    together = [answers(result) for result in search(model, "beam", n=4)]
    assert together == [answers(result) for result in search(model, "beam", n=4, batch_rows=1)]
    alone = [answers(search(model, "beam", n=4, prompts=[prompt])[0]) for prompt in ([3], [7, 1, 30, 12])]
    assert together[:2] == alone


def test_temperature_one_is_temperature_zero_and_warpers_cut(search, answers):
    plain = [answers(result) for result in search(3, "beam", n=2)]
    assert plain == [answers(result) for result in search(3, "beam", n=2, temperature=1.0)]
    cut = search(3, "beam", n=2, temperature=1.0, top_k=1)
    greedy = search(3, "plain")
    assert [result.tokens for result in cut] == [result.tokens for result in greedy]
    assert all(len(result.samples) == 1 and result.log_weight == 0 for result in cut)


class DeadEnds:
    """Allows only even tokens, and after a 2 nothing, or nothing at all."""

    def __init__(self, nothing: bool = False) -> None:
        self.nothing = nothing

    def mask(self, row, continuation):
        allowed = np.arange(5) % 2 == 0
        return allowed & (2 not in continuation.tolist()) & (not self.nothing or len(continuation) < 2)


@pytest.mark.parametrize("method", ["beam", "best_first_beam", "diverse_beam", "stochastic_beam"])
def test_dead_beams_are_dropped_and_the_last_one_ends_dead(method):
    make, roles = parts_of(method, None)
    setting = Setting("dead ends", Sampling(0.0), tokens=4, vocabulary=5, fenced=False)
    for nothing in (False, True):
        case = Bench(lambda nothing=nothing: make().join(Parts(constrain=(DeadEnds(nothing),))), roles).case(setting, 1)
        for answers in case.answers(Keyed(1)):
            texts = [answer.tokens for answer in answers]
            if nothing:
                assert len(answers) == 1 and answers[0].finish_reason == "dead_end" and answers[0].log_weight == -np.inf
                assert len(texts[0]) in (1, 2)
            else:
                assert all(set(text) <= {0, 4} or text[-1] == 2 == len(text) // 2 for text in texts)
                assert answers[0].finish_reason == "length"


@pytest.mark.parametrize("method", ["beam", "best_first_beam", "diverse_beam", "stochastic_beam"])
def test_a_budget_ends_a_search_with_what_it_has(search, method):
    for result in search(2, method, n=2, stop_ids=[0], budget={"model_calls": 3}):
        assert result.samples and all(len(sample.tokens) <= 4 for sample in result.samples)
        assert {sample.finish_reason for sample in result.samples} <= {"budget", "stop"}
        assert np.isfinite(result.log_weight)
    for result in search(2, method, n=2, budget={"tokens": 3}):
        assert [len(sample.tokens) for sample in result.samples] == [3, 3]
        assert {sample.finish_reason for sample in result.samples} == {"budget"}


def test_the_trace_counts_the_whole_search(search):
    """The winner may have ended long before the search; all calls were made for it."""
    result = search(4, "beam", {"early_stopping": "never", "length_penalty": 0.0}, [[1, 2]], stop_ids=[0], n=1)[0]
    scored = [call for call in result.trace.calls if call.kind == "score"]
    assert result.trace.model_calls == len(scored) >= len(result.tokens)
    assert all(call.rows == 4 for call in scored)


def test_bad_options_are_refused(search):
    with pytest.raises(InputError, match="beams' is 0"):
        search(1, "beam", {"beams": 0})
    with pytest.raises(InputError, match="early_stopping"):
        search(1, "beam", {"early_stopping": "soon"})
    with pytest.raises(InputError, match="n is 5 and beam chooses among 4"):
        search(1, "beam", n=5)
    with pytest.raises(CompositionError, match="single seat 'verify'"):
        search(1, "token_recycling+beam")
