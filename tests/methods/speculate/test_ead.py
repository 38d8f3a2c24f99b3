"""Entropy adaptive decoding: its switches against a loop of its own, its limits, its law, shares out of the trace."""

from __future__ import annotations

import math

import numpy as np
import pytest

import treewright
from treewright import laws
from treewright.core.errors import UnknownOption
from treewright.core.randomness import Keyed
from treewright.core.request import Request, Sampling
from treewright.methods.speculate.ead import Config, EntropyWindow, entropy_bits, parts
from treewright.models.loading import load
from treewright.models.tables import Table
from treewright.testing.definition import warp
from treewright.testing.enumerate import Case, exact_law, total_variation

LARGE, SMALL = Table(4, seed=3, sharpness=1.6), Table(4, seed=8, sharpness=1.1)
PROMPTS = ((1,), (0, 2, 1, 3), (2, 1))


def bits(logits):
    law = np.exp(logits - logits.max())
    law /= law.sum()
    return -float((law * np.log2(law)).sum())


def next_writer(new, prompt, threshold, window, least):
    """Who writes after these new tokens, from the rule as it is written."""
    model, run = "target", []
    for place in range(len(new)):
        table = {"target": LARGE, "small": SMALL}[model]
        run.append(bits(table.logits([*prompt, *new[:place]])))
        if len(run) >= least:
            wanted = "target" if np.mean(run[-window:]) > threshold else "small"
            if wanted != model:
                model, run = wanted, []
    return model


def case_of(row=0, tokens=3, sampling=None, **options):
    request = Request(PROMPTS, max_new_tokens=tokens, sampling=sampling or Sampling(1.0))
    return Case(request, {"target": LARGE, "small": SMALL}, lambda: parts(Config(**options)), row)


@pytest.mark.parametrize("options", [(1.5, 2, 1), (1.7, 1, 2), (1.6, 3, 1)])
@pytest.mark.parametrize("row", [0, 1])
def test_the_law_is_that_of_the_rule(options, row):
    threshold, window, least = options
    sampling = Sampling(0.9, repetition_penalty=1.1)
    case = case_of(row, 4, Sampling(0.9), threshold=threshold, window=window, least=least)
    law, waiting, writers = {}, [((), 1.0)], set()
    while waiting:
        new, chance = waiting.pop()
        if len(new) == 4:
            law[new] = chance
            continue
        writer = next_writer(new, PROMPTS[row], threshold, window, least)
        writers.add(writer)
        table = {"target": LARGE, "small": SMALL}[writer]
        for token, probability in enumerate(warp(table.logits([*PROMPTS[row], *new]).tolist(), Sampling(0.9))):
            waiting.append(((*new, token), chance * probability))
    assert writers == {"target", "small"}
    assert sampling.history and total_variation(exact_law(case), law) < 1e-12


def test_how_far_it_is_from_the_targets_own_text():
    """Total variation of three tokens: none for "-inf", all of the two models' distance for "inf", between them for a switch."""
    found = []
    for threshold in ("-inf", 1.5, "inf"):
        case = case_of(threshold=threshold, window=2, least=1)
        found.append(total_variation(exact_law(case), laws.plain_law(case)))
    swapped = Case(case.request, {"target": SMALL}, case.make_parts, 0)
    assert found[0] < 1e-12 and found[2] == pytest.approx(total_variation(laws.plain_law(swapped), laws.plain_law(case)))
    assert 0.05 < found[1] < found[2]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_the_limits_are_the_two_models_texts_token_for_token(temperature):
    settings = dict(max_new_tokens=20, temperature=temperature, seed=2)
    prompts, models = [list(prompt) for prompt in PROMPTS], {"small": load(SMALL)}
    for threshold, writer in (("-inf", LARGE), ("inf", SMALL)):
        ours = treewright.generate(load(LARGE), prompts, "ead", {"threshold": threshold}, models, **settings)
        plain = treewright.generate(load(writer), prompts, **settings)
        assert [result.tokens for result in ours] == [result.tokens for result in plain]
    called = {call.model for call in ours[0].trace.calls if call.kind == "score"}
    assert called == {"small"} and ours[0].trace.model_calls == 0


def test_the_trace_says_who_wrote():
    options = dict(threshold=1.5, window=2, least=2)
    engine = case_of(tokens=25, sampling=Sampling(), **options).open(Keyed(0), {})
    for _ in engine.run():
        pass
    for row, prompt in enumerate(PROMPTS):
        tokens, steps = engine.finished[row, 0].tokens, engine.traces[row, 0].steps
        assert [step.model for step in steps] == [next_writer(tokens[:at], prompt, *options.values()) for at in range(25)]
        assert [step.calls for step in steps] == [int(step.model == "target") for step in steps]
        assert {step.model for step in steps} == {"target", "small"}


def test_the_model_that_takes_over_reads_what_it_missed():
    """A call of either model for each token of a lone row, however often they take turns."""
    found = treewright.generate(
        load(LARGE), [1, 2], "ead", {"threshold": 1.5, "window": 1, "least": 1}, {"small": load(SMALL)}, max_new_tokens=30
    )
    scored = [call.model for call in found.trace.calls if call.kind == "score"]
    assert len(scored) == 30 and found.trace.model_calls == scored.count("target")
    assert scored == [step.model for step in found.trace.steps]


@pytest.mark.parametrize("least", [1, 3, 20])
def test_the_cost_in_parameters_is_read_from_the_trace_with_what_catching_up_reads(least, deep):
    """Of the docstring's recipe: shares from the steps, and every token that either model read from the calls, by definition."""
    parameters, prompt = {"target": 70, "small": 8}, [3, 1, 4, 1]
    options = {"threshold": 4.6, "window": 2, "least": least}
    trace = treewright.generate(
        deep("llama"), prompt, "ead", options, {"small": deep("gpt2")}, max_new_tokens=60, temperature=1.0, seed=1
    ).trace
    wrote = {model: [at for at, step in enumerate(trace.steps) if step.model == model] for model in parameters}
    assert len(wrote["target"]) + len(wrote["small"]) == len(trace.steps) == 60 and all(wrote.values())
    shares = {model: len(places) / 60 for model, places in wrote.items()}
    writing = sum(parameters[step.model] for step in trace.steps) / 60
    assert writing == pytest.approx(70 * shares["target"] + 8 * shares["small"])

    # Whoever writes has read all before it, once, and what came after its last token it never reads.
    read = {model: sum(call.columns for call in trace.calls if call.model == model) for model in parameters}
    assert read == {model: len(prompt) + places[-1] for model, places in wrote.items()}
    missed = {model: read[model] - len(prompt) + 1 - len(wrote[model]) for model in parameters}
    cost = sum(parameters[call.model] * call.columns for call in trace.calls)
    assert cost == 60 * writing + sum(parameters[m] * (missed[m] + len(prompt) - 1) for m in parameters)
    assert missed["small"] >= least and any(call.columns >= least for call in trace.calls if call.model == "small")


def test_the_window_begins_anew_at_a_switch_and_no_switch_comes_early():
    writing, seen = EntropyWindow("target"), []
    for entropy in (3, 3, 0, 0, 0, 3, 0, 3, 3, 3):
        writing.note(entropy, threshold=1.0, window=2, least=3)
        seen.append((writing.model, len(writing.entropies)))
    # 3 3 0: mean 1.5 stays; 0 0: small; its own 0 3 0 ... until the last two hold more than 1.
    assert seen[:4] == [("target", 1), ("target", 2), ("target", 2), ("small", 0)]
    assert [model for model, _ in seen[4:]] == ["small", "small", "target", "target", "target", "target"]


def test_entropy():
    assert entropy_bits(np.zeros(8)) == pytest.approx(3)
    assert entropy_bits(np.array([0.0, -np.inf, -np.inf])) == 0
    assert entropy_bits(np.array([2.0, 1.0, -1.0])) == pytest.approx(bits(np.array([2.0, 1.0, -1.0])))


def test_rows_of_a_batch_are_those_rows_alone():
    assert laws.row_independent("ead", {"threshold": 1.5, "least": 1}).worst == 0


def test_samples_and_particles_have_a_state_each():
    options, models = {"threshold": 1.5, "window": 1, "least": 1, "candidates": 3, "by": "likelihood"}, {"small": load(SMALL)}
    settings = dict(max_new_tokens=12, temperature=1.0, seed=1)
    found = treewright.generate(load(LARGE), [1, 2], "ead+best_of_n", options, models, n=3, **settings)
    plain = treewright.generate(
        load(LARGE), [1, 2], "ead", {k: options[k] for k in ("threshold", "window", "least")}, models, n=3, **settings
    )
    assert sorted(s.tokens for s in found.samples) == sorted(s.tokens for s in plain.samples)


def test_rows_are_no_longer_than_the_small_model_has_positions():
    from dataclasses import replace

    short = Table(4, seed=8)
    short.capabilities = replace(short.capabilities, max_length=9)
    found = treewright.generate(load(LARGE), [1, 2], "ead", {"threshold": "inf"}, {"small": load(short)}, max_new_tokens=30)
    assert len(found.tokens) == 7


@pytest.mark.parametrize("options", [{"window": 0}, {"least": 0}, {"threshold": "high"}, {"threshold": math.inf}], ids=str)
def test_bad_options_are_refused(options):
    with pytest.raises(UnknownOption, match=next(iter(options))):
        treewright.generate(load(LARGE), [1], "ead", options, {"small": load(SMALL)}, max_new_tokens=2)
