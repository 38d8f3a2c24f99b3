"""Best-first beam search finds what beam search finds, and evaluates fewer beginnings for it."""

from __future__ import annotations

import numpy as np
import pytest

from treewright import laws
from treewright.core.errors import InputError
from treewright.models.loading import load
from treewright.models.tables import Table


@pytest.mark.parametrize("options", [{"beams": 1}, {"beams": 3, "length_penalty": 0.0}, {"beams": 6, "length_penalty": 2.0}])
def test_equals_beam_search_by_definition(options):
    assert laws.equals_beam("best_first_beam", options).total("outcomes") > 20


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("penalty", [0.0, 1.0])
@pytest.mark.parametrize("n", [1, 3])
def test_equals_beam_on_a_network(search, answers, tiny, family, penalty, n):
    model, shared = tiny(family, "float64"), {"beams": 3, "length_penalty": penalty}
    beam = search(model, "beam", {**shared, "early_stopping": "never"}, n=n)
    assert [answers(result) for result in beam] == [answers(result) for result in search(model, "best_first_beam", shared, n=n)]


def asked(result):
    """Beginnings that the target evaluated for the prompt: the claims of the one round, its frontier included."""
    assert len(result.trace.steps) == 1
    claims = sum(token >= 0 for token in result.trace.steps[0].token)
    assert sum(call.rows for call in result.trace.calls if call.kind == "score") == claims == result.trace.model_calls
    return claims


def test_fewer_beginnings_are_evaluated(search):
    """One answer by probability costs far less than beam search, all answers hardly less."""
    counts = {}
    for name, n, penalty in (("one", 1, 0.0), ("one, normalised", 1, 1.0), ("all", 5, 0.0)):
        shared = {"beams": 5, "length_penalty": penalty}
        pairs = np.zeros(2)
        for seed in range(8):
            table, settings = load(Table(6, seed, sharpness=1.5)), dict(prompts=[[1, 0]], n=n, stop_ids=[0])
            beam = search(table, "beam", {**shared, "early_stopping": "never"}, **settings)[0]
            best_first = search(table, "best_first_beam", shared, **settings)[0]
            assert [s.tokens for s in beam.samples] == [s.tokens for s in best_first.samples]
            pairs += sum(call.rows for call in beam.trace.calls if call.kind == "score"), asked(best_first)
        counts[name] = pairs[1] / pairs[0]
    assert counts["one"] < 0.5 < counts["one, normalised"] < 1.0
    assert counts["one"] < counts["all"] <= 1.0


def test_calls_are_counted_inside_the_round(search, tiny):
    result = search(tiny("llama", "float32"), "best_first_beam", prompts=[[3]])[0]
    assert result.trace.tokens_per_call == len(result.tokens) / result.trace.model_calls
    assert {(call.rows, call.columns) for call in result.trace.calls if call.kind == "score"} == {(1, 1)}


def test_its_room_is_not_lowered_by_the_machine(search, answers, tiny):
    """Beginnings stay alive for the whole search, however many columns pay in one call."""
    model, shared = tiny("llama", "float64"), {"beams": 4, "length_penalty": 1.0}
    settings = dict(n=4, max_new_tokens=30, ignore_eos=True)
    beam = search(model, "beam", {**shared, "early_stopping": "never"}, **settings)
    ours = search(model, "best_first_beam", shared, **settings)
    assert [answers(result) for result in beam] == [answers(result) for result in ours]
    assert len(ours[0].trace.steps[0].token) > 64


@pytest.mark.parametrize(
    ("options", "named"), [({"beams": 0}, "beams' is 0"), ({"length_penalty": -1.0}, "length_penalty' is -1")]
)
def test_bad_options_are_refused(search, options, named):
    with pytest.raises(InputError, match=named):
        search(1, "best_first_beam", options)
