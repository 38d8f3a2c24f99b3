"""D^3: numbers of layers by the formula, the law on tables by definition, text of a network with layers really taken out."""

from __future__ import annotations

import copy
from collections import Counter
from math import floor
from typing import Any

import numpy as np
import pytest
import torch

import treewright
from treewright.core.errors import CapabilityError, InputError, UnknownOption
from treewright.core.request import Sampling
from treewright.core.roles import Parts
from treewright.methods.speculate import prompt_lookup
from treewright.methods.speculate.d3 import Config, DepthDecay, parts
from treewright.models.tables import Table
from treewright.parts.verify.sample_then_match import SampleThenMatch

TABLE = Table(5, seed=3)
PROMPTS = [(1, 2, 3, 4), (0,), (4, 2, 1)]


def d3(**options: Any) -> Parts:
    """The method alone, with plain decoding's verifier."""
    return Parts(verify=SampleThenMatch()).join(parts(Config(**options)))


def kept(number: int, alpha: float, layers: int, least: int) -> int:
    return max(least, floor(layers * alpha**number))


@pytest.mark.parametrize(("first", "last", "least"), [(1, 1, None), (2, 3, 6), (0, 0, 1), (4, 4, None)])
@pytest.mark.parametrize("depth", [8, 33])
def test_dropped_layers_grow_from_the_middle_and_never_come_back(first: int, last: int, least: int | None, depth: int):
    decay = DepthDecay(Config(0.9, least, first, last))
    before: set[int] = set()
    for number in range(60):
        plan = decay.plan(number, depth)
        assert plan.attention == plan.mlp
        dropped = set(range(depth)) - plan.attention
        assert len(plan.attention) == kept(number, 0.9, depth, max(first + last, least or depth // 4))
        assert before <= dropped
        assert not dropped or dropped == set(range(min(dropped), max(dropped) + 1))
        assert not dropped & {*range(first), *range(depth - last, depth)}
        before = dropped
    assert len(before) == depth - max(first + last, least or depth // 4)


def test_layers_of_each_call_follow_the_formula(decode: Any):
    decoded = decode(TABLE, d3(alpha=0.93, least=3), [PROMPTS[0]], max_new_tokens=20)
    shares = [call.share for call in decoded.trace().calls if call.kind == "score"]
    assert shares == [kept(number, 0.93, 8, 3) / 8 for number in range(20)]


def test_a_batch_counts_each_rows_own_tokens(decode: Any):
    """Rows that enter when others leave are at other places of their answers."""
    method = d3(alpha=0.85, least=2)
    lengths = dict(max_new_tokens=12, batch_rows=2, stop_ids=(4,))
    together = decode(TABLE, method, PROMPTS, **lengths)
    assert len({len(tokens) for tokens in together.tokens}) > 1
    assert together.tokens == [decode(TABLE, method, [prompt], **lengths).tokens[0] for prompt in PROMPTS]


def test_law_of_each_token_is_that_of_the_layers_that_ran(decode: Any, outcomes: Any):
    method, sampling = d3(alpha=0.8, least=2), Sampling(temperature=0.7)
    table = Table(3, seed=4)
    found: Counter[tuple[int, ...]] = Counter()
    for probability, text in outcomes(
        lambda chance: tuple(decode(table, method, [(1, 0)], randomness=chance, max_new_tokens=4, sampling=sampling).tokens[0])
    ):
        found[text] += probability
    assert len(found) == 3**4
    for text, probability in found.items():
        expected, prefix = 1.0, [1, 0]
        for number, token in enumerate(text):
            weights = np.exp(table.exit_logits(prefix, kept(number, 0.8, 8, 2)) / 0.7)
            expected *= weights[token] / weights.sum()
            prefix.append(token)
        assert probability == pytest.approx(expected, abs=1e-12)
    plain = np.exp(table.logits([1, 0, 0]) / 0.7)
    second = sum(p for text, p in found.items() if text[:2] == (0, 1)) / sum(p for text, p in found.items() if text[0] == 0)
    assert abs(second - plain[1] / plain.sum()) > 0.01


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_alpha_one_is_plain_decoding(temperature: float, decode: Any):
    settings = dict(max_new_tokens=20, sampling=Sampling(temperature), seed=3)
    decoded = decode(TABLE, d3(alpha=1.0), PROMPTS, **settings)
    assert decoded.tokens == decode(TABLE, "plain", PROMPTS, **settings).tokens
    assert {call.share for call in decoded.trace().calls} == {1.0}


def test_alpha_one_on_networks(says_what_plain_says: Any):
    says_what_plain_says("d3", {"alpha": 1.0})


def slow_text(network: Any, prompt: list[int], count: int, decay: DepthDecay) -> list[int]:
    """One token at a time through copies of the network that lack what is left out, on one memory."""
    from transformers import DynamicCache

    cache, text = DynamicCache(), list(prompt)
    with torch.no_grad():
        if len(prompt) > 1:
            network(torch.tensor([prompt[:-1]]), past_key_values=cache, use_cache=True)
        for number in range(count):
            part = copy.deepcopy(network)
            for layer in set(range(4)) - decay.plan(number, 4).attention:
                part.model.layers[layer].self_attn.o_proj.weight.zero_()
                part.model.layers[layer].mlp.down_proj.weight.zero_()
                # What a dropped layer would write must never be read: make it poison.
                part.model.layers[layer].self_attn.k_proj.weight.fill_(1e6)
            text.append(int(part(torch.tensor([text[-1:]]), past_key_values=cache, use_cache=True).logits[0, -1].argmax()))
    return text[len(prompt) :]


def test_text_of_a_network_whose_layers_are_taken_out(deep: Any):
    model, prompts = deep("llama"), [[3, 14, 15, 9, 26], [5], [35, 8, 9]]
    options = {"alpha": 0.9, "least": 2}
    decay = DepthDecay(Config(**options))
    batch = treewright.generate(model, prompts, "d3", options, max_new_tokens=12)
    assert [result.tokens for result in batch] == [slow_text(model.model, prompt, 12, decay) for prompt in prompts]
    assert batch[0].tokens != treewright.generate(model, prompts[0], "plain", max_new_tokens=12).tokens


def test_claims_of_a_drafter_are_judged_by_the_layers_of_the_next_token(decode: Any):
    lookup = prompt_lookup.parts(prompt_lookup.Config())
    decoded = decode(TABLE, lookup.join(d3(alpha=0.9, least=2)), [PROMPTS[0] * 3], max_new_tokens=24)
    text, accepted = list(PROMPTS[0] * 3), 0
    for step in decoded.trace().steps:
        layers = kept(len(text) - 12, 0.9, 8, 2)
        for token in step.emitted:
            assert token == int(TABLE.exit_logits(text, layers).argmax())
            text.append(token)
        accepted += len(step.accepted)
    assert accepted > 2


def test_bad_options_are_one_sentence(deep: Any):
    for options, words in (
        ({"least": 5}, r"d3's least is 5 and the model has 4 layers; give at most 4"),
        ({"first": 3, "last": 2}, r"d3's first and last together is 5 and the model has 4 layers"),
    ):
        with pytest.raises(CapabilityError, match=words):
            treewright.generate(deep("llama"), [1, 2], "d3", options)
    for bad in ({"alpha": 0.0}, {"alpha": 1.1}, {"least": 0}, {"first": -1}, {"last": -1}):
        with pytest.raises((InputError, UnknownOption), match=next(iter(bad))):
            treewright.generate(deep("llama"), [1, 2], "d3", bad)


def test_a_model_without_layers_is_refused(deep: Any):
    with pytest.raises(CapabilityError, match="needs layers"):
        treewright.generate(deep("mamba"), [1, 2], "d3")
