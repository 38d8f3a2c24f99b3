"""Reward-guided decoding against a loop of its own, its limits, its law, what it discards, and rows side by side."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

import treewright
from treewright.core.errors import InputError, UnknownOption
from treewright.core.randomness import Keyed
from treewright.core.request import Budget, Request, Sampling
from treewright.core.roles import Parts
from treewright.engine.loop import Engine, Run
from treewright.methods.speculate.reward_guided import Config, parts
from treewright.models.loading import Loaded, load
from treewright.models.tables import Table
from treewright.testing.definition import plain_law, warp
from treewright.testing.enumerate import Case, Outcomes, total_variation

LARGE, SMALL = Table(5, seed=1, sharpness=1.4, order=5), Table(5, seed=20, sharpness=1.4, order=5)
LITTLE = Table(3, seed=3, sharpness=1.4), Table(3, seed=8, sharpness=1.4)
PROMPTS = [[1], [0, 2, 1, 3], [2, 1]]
DOT = 4


class Letters:
    """Every token is a letter, token 4 the dot that ends a step; token 0 may end the text."""

    chat_template = None
    eos_token_id = None

    def __init__(self, spelling="abcd."):
        self.spelling = spelling

    def decode(self, ids, **options):
        return "".join(self.spelling[token] for token in ids)

    def __call__(self, text):
        return {"input_ids": [self.spelling.index(letter) for letter in text]}


def judge(prompt, text):
    """The share of the last step's letters that are among a and b; the prompt counts, too."""
    step = text.rstrip(".").split(".")[-1]
    return (sum(letter in "ab" for letter in step) + 0.1 * len(prompt)) / max(1, len(step))


def loaded(table=LARGE):
    return Loaded("table", table, Letters(), table)


def decode(prompts=PROMPTS, judge=judge, **settings):
    options = {"threshold": 0.5, "delimiter": ".", "tokens": 6} | settings.pop("options", {})
    fields = {"max_new_tokens": 30, "ignore_eos": True} | settings
    models = {"draft": loaded(SMALL), "reward": judge}
    return treewright.generate(loaded(), prompts, "reward_guided", options, models, **fields)


def greedy_by_hand(prompt, count, threshold=0.5, tokens=6):
    """The loop as the paper has it: tokens, discarded ones, and who wrote each step."""
    text, discarded, writers = [], 0, []

    def step(table):
        new = []
        while len(new) < tokens and len(text) + len(new) < count and not (new and new[-1] == DOT):
            new.append(int(table.logits([*prompt, *text, *new]).argmax()))
        return new

    letters = Letters()
    while len(text) < count:
        new = step(SMALL)
        kept = judge(letters.decode(prompt), letters.decode([*text, *new])) >= threshold
        discarded += 0 if kept else len(new)
        text += new if kept else step(LARGE)
        writers.append("draft" if kept else "target")
    return text, discarded, writers


def discarded(trace):
    return sum(len([token for token in step.token[1:] if token >= 0]) - len(step.accepted) for step in trace.steps)


def test_it_is_the_papers_loop_at_temperature_0_and_counts_what_it_discards():
    mixed = 0
    for prompt, found in zip(PROMPTS, decode(), strict=True):
        text, thrown, writers = greedy_by_hand(prompt, 30)
        assert found.tokens == text and discarded(found.trace) == thrown
        mixed += set(writers) == {"draft", "target"}
        by_draft = sum(len(step.emitted) for step in found.trace.steps if step.model == "draft")
        by_target = sum(len(step.emitted) for step in found.trace.steps if step.model == "target")
        assert by_draft + by_target == 30
    assert mixed, "no prompt had steps of both; the test shows nothing"


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_the_limits_are_the_two_models_texts_token_for_token(temperature):
    def never(prompt, text):
        raise AssertionError("nobody need judge here")

    settings = dict(max_new_tokens=20, temperature=temperature, seed=2, repetition_penalty=1.2, ignore_eos=True)
    for threshold, writer in (("-inf", SMALL), ("inf", LARGE)):
        ours = decode(judge=never, options={"threshold": threshold}, **settings)
        plain = treewright.generate(loaded(writer), PROMPTS, **settings)
        assert [result.tokens for result in ours] == [result.tokens for result in plain]
        called = {call.model for call in ours[0].trace.calls if call.kind == "score"}
        assert called == ({"draft"} if threshold == "-inf" else {"target"})
        assert discarded(ours[0].trace) == 0


@pytest.mark.parametrize(("threshold", "writer", "temperature"), [(-1e9, SMALL, 0.0), (1e9, LARGE, 0.0), (1e9, LARGE, 1.0)])
def test_a_bound_that_always_or_never_holds_gives_the_same_texts(threshold, writer, temperature):
    found = decode(options={"threshold": threshold}, temperature=temperature, seed=5)
    plain = treewright.generate(loaded(writer), PROMPTS, max_new_tokens=30, temperature=temperature, seed=5, ignore_eos=True)
    assert [result.tokens for result in found] == [result.tokens for result in plain]


def law_of(threshold, count, tokens):
    """All outcomes of one row through the engine, with a tokenizer and a judge."""
    request = Request(((2, 1),), max_new_tokens=count, sampling=Sampling(1.0))
    scorer = SimpleNamespace(score=lambda prompt, texts: [judge(prompt, text) for text in texts])
    chance, law = Outcomes((0, 0), Keyed(1)), {}
    while True:
        chance.begin()
        made = parts(Config(threshold=threshold, delimiter=".", tokens=tokens))
        models = dict(zip(("target", "draft"), LITTLE, strict=True))
        engine = Engine(Run(request, models, made, chance, decode=Letters("ac.").decode, scorers={"reward": scorer}))
        for _ in engine.run():
            pass
        text = tuple(engine.finished[0, 0].tokens)
        law[text] = law.get(text, 0.0) + chance.probability
        if not chance.advance():
            return law, Case(request, models, Parts)


def steps_of(table, text, most):
    """The law of the next step of a table after `text`."""
    law, waiting = {}, [((), 1.0)]
    while waiting:
        new, chance = waiting.pop()
        if len(new) == most or (new and new[-1] == 2):
            law[new] = chance
            continue
        for token, probability in enumerate(warp(table.logits([2, 1, *text, *new]).tolist(), Sampling(1.0))):
            waiting.append(((*new, token), chance * probability))
    return law


def test_the_law_is_the_mixture_of_the_definition_and_far_from_the_targets():
    count, tokens, threshold = 3, 2, 0.6
    found, case = law_of(threshold, count, tokens)
    law, waiting = {}, [((), 1.0)]
    while waiting:
        text, chance = waiting.pop()
        if len(text) == count:
            law[text] = law.get(text, 0.0) + chance
            continue
        most = min(tokens, count - len(text))
        drafts, refused = steps_of(LITTLE[1], text, most), 0.0
        for step, probability in drafts.items():
            if judge(".c", Letters("ac.").decode([*text, *step])) >= threshold:
                waiting.append(((*text, *step), chance * probability))
            else:
                refused += probability
        waiting += [((*text, *step), chance * refused * p) for step, p in steps_of(LITTLE[0], text, most).items() if refused]
    assert total_variation(found, law) < 1e-12
    assert 0.1 < total_variation(found, plain_law(case)) < 0.9


def test_rows_of_a_ragged_batch_are_those_rows_alone():
    for temperature in (0.0, 1.0):
        together = decode(temperature=temperature, seed=7)
        alone = [decode([prompt], temperature=temperature, seed=7)[0] for prompt in PROMPTS]
        assert together[0].tokens == alone[0].tokens
        # A prompt's number is a part of its noise.
        if temperature == 0:
            assert [one.tokens for one in together] == [one.tokens for one in alone]


def test_ends_stops_and_budgets():
    ended = decode(stop_ids=[0], max_new_tokens=40)
    for prompt, found in zip(PROMPTS, ended, strict=True):
        text = greedy_by_hand(prompt, 40)[0]
        if found.finish_reason == "stop":
            assert found.tokens[-1] == 0 and 0 not in found.tokens[:-1]
        else:
            assert 0 not in text[: len(found.tokens)]
    assert decode([PROMPTS[0]], budget=Budget(tokens=3))[0].finish_reason == "budget"
    few = decode(options={"threshold": 1e9}, budget=Budget(model_calls=4))
    assert few[0].finish_reason == "budget" and len(few[0].tokens) <= 4
    stopped = decode(stop=["."])
    assert all("." not in found.text for found in stopped)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_penalties_and_forbidden_tokens_hold_in_steps_of_both(temperature):
    found = decode(logit_bias={2: -1e9}, temperature=temperature, seed=3)
    assert {step.model for one in found for step in one.trace.steps} >= {"target", "draft"}
    assert all(2 not in one.tokens for one in found)


def test_a_judge_is_needed():
    with pytest.raises(InputError, match="needs a judge for the role 'reward'"):
        treewright.generate(loaded(), [1], "reward_guided", models={"draft": loaded(SMALL)}, max_new_tokens=2)


@pytest.mark.parametrize("options", [{"tokens": 0}, {"delimiter": ""}, {"threshold": "high"}], ids=str)
def test_bad_options_are_refused(options):
    with pytest.raises(UnknownOption, match=next(iter(options))):
        decode(options=options)


def test_networks():
    """Tiny transformers models: the limits, and a batch whose long steps are wider than the columns that pay on a CPU."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")

    def network(seed):
        torch.manual_seed(seed)
        config = transformers.LlamaConfig(
            vocab_size=5, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, initializer_range=0.5
        )
        return load(transformers.LlamaForCausalLM(config).double().eval(), Letters())

    with torch.random.fork_rng():
        large, small = network(1), network(2)
    options = {"delimiter": "no such", "tokens": 90}
    settings = dict(max_new_tokens=100, temperature=1.0, seed=1, ignore_eos=True)
    models = {"draft": small, "reward": lambda prompt, text: float(len(text) < 60)}
    found = treewright.generate(large, PROMPTS, "reward_guided", {"threshold": "-inf", **options}, models, **settings)
    assert [one.tokens for one in found] == [one.tokens for one in treewright.generate(small, PROMPTS, **settings)]
    assert max(len(step.accepted) for step in found[0].trace.steps) == 90
    found = treewright.generate(large, PROMPTS, "reward_guided", {"threshold": 0.5, **options}, models, **settings)
    assert [one.tokens for one in found] == [one.tokens for one in treewright.generate(large, PROMPTS, **settings)]
    assert np.isfinite(found[0].trace.seconds)
