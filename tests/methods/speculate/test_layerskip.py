"""LayerSkip: drafts of the first layers, against tables whose exits are known and a network whose last layers are gone."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch

import treewright
from treewright.core.errors import CapabilityError, InputError, UnknownOption
from treewright.core.request import Budget, Sampling
from treewright.models.tables import Table
from treewright.testing import laws

TABLE = Table(6, seed=7)
PROMPT = (1, 0)


def exit_text(prompt: tuple[int, ...], layer: int, count: int) -> list[int]:
    text = list(prompt)
    for _ in range(count):
        text.append(int(TABLE.exit_logits(text, layer).argmax()))
    return text[len(prompt) :]


@pytest.mark.parametrize("layer", [1, 5, 7])
def test_drafts_are_the_exits_own_greedy_text(layer: int, decode: Any, greedy_text: Any):
    decoded = decode(TABLE, "layerskip", [PROMPT], {"exit_layer": layer, "tokens": 4}, max_new_tokens=16)
    assert decoded.tokens == [greedy_text(TABLE, PROMPT, 16)]
    assert decoded.trace().steps[0].token[1:] == exit_text(PROMPT, layer, 4)


def test_a_quarter_of_the_layers_drafts_by_default(decode: Any):
    decoded = decode(TABLE, "layerskip", [PROMPT], max_new_tokens=8)
    assert decoded.trace().steps[0].token[1:] == exit_text(PROMPT, 2, 6)
    assert {call.share for call in decoded.trace().calls if call.kind == "sketch"} == {0.25}


@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_exit_at_the_last_layer_accepts_everything(temperature: float, decode: Any):
    options = {"exit_layer": TABLE.layers, "tokens": 4}
    decoded = decode(TABLE, "layerskip", [PROMPT, (3,)], options, max_new_tokens=20, sampling=Sampling(temperature=temperature))
    assert [len(step.emitted) for step in decoded.trace().steps] == [5, 5, 5, 5]


def test_a_draft_is_accepted_as_often_as_both_laws_share(decode: Any, outcomes: Any):
    """E[accepted] of one draft is the sum of min(p, q), q the exit's law."""
    settings = dict(max_new_tokens=2, budget=Budget(model_calls=1), sampling=Sampling(temperature=1.0))

    def run(chance: Any) -> int:
        decoded = decode(TABLE, "layerskip", [PROMPT], {"exit_layer": 4, "tokens": 1}, randomness=chance, **settings)
        return len(decoded.trace().steps[0].accepted)

    p, q = (np.exp(z) / np.exp(z).sum() for z in (TABLE.logits(PROMPT), TABLE.exit_logits(PROMPT, 4)))
    accepted = sum(probability * count for probability, count in outcomes(run))
    assert accepted == pytest.approx(np.minimum(p, q).sum(), abs=1e-12)
    assert 0.2 < accepted < 0.95


def test_calls_of_a_round(decode: Any):
    decoded = decode(TABLE, "layerskip", [PROMPT], {"exit_layer": 2, "tokens": 3}, max_new_tokens=12)
    kinds = [call.kind for call in decoded.trace().calls]
    assert kinds[:4] == ["sketch", "sketch", "sketch", "score"]
    assert decoded.trace().model_calls == decoded.rounds()


@pytest.mark.parametrize("family", ["table", "llama"])
def test_drafts_through_all_layers_are_calls_of_the_budget(family: str, decode: Any, deep: Any):
    model = TABLE if family == "table" else deep("llama").protocol
    settings = dict(max_new_tokens=40, budget=Budget(model_calls=8))
    for layer, calls, tokens in ((model.capabilities.layers, 4, 8), (1, 1, None)):
        decoded = decode(model, "layerskip", [PROMPT], {"exit_layer": layer, "tokens": 3}, **settings)
        assert [step.calls for step in decoded.trace().steps] == [calls] * (8 // calls)
        assert decoded.trace().model_calls == 8
        assert tokens is None or len(decoded.tokens[0]) == tokens


@pytest.mark.parametrize("options", [{"exit_layer": 6, "tokens": 2}], ids=str)
def test_the_law_holds_at_other_exits(options: dict[str, Any]):
    assert laws.lossless("layerskip", options).worst <= 1e-9


def test_greedy_text_of_networks_is_that_of_plain_decoding(says_what_plain_says: Any):
    results = says_what_plain_says("layerskip", {"exit_layer": 3, "tokens": 4})
    assert sum(len(step.accepted) for result in results for step in result.trace.steps) > 0
    whole = says_what_plain_says("layerskip", {"exit_layer": 4, "tokens": 3})
    assert {len(step.emitted) for result in whole for step in result.trace.steps} == {4}


def test_drafts_of_a_network_are_those_of_its_first_layers_alone(deep: Any, decode: Any):
    """What the first layers keep of the text does not depend on the layers behind them, so a shortened network drafts alike."""
    model = deep("llama")
    short = copy.deepcopy(model.model)
    short.model.layers = short.model.layers[:2]
    prompt = [3, 14, 15, 9, 26]
    steps = treewright.generate(model, prompt, "layerskip", {"exit_layer": 2, "tokens": 4}, max_new_tokens=14).trace.steps
    for step in steps[:3]:
        text = list(prompt)
        for token in step.token[1:]:
            with torch.no_grad():
                assert token == int(short(torch.tensor([text]), use_cache=False).logits[0, -1].argmax())
            text.append(token)
        prompt += step.emitted


def test_bad_options_are_one_sentence(deep: Any):
    with pytest.raises(CapabilityError, match=r"exit_layer names 5 and the model has 4 layers; give numbers from 1 to 4"):
        treewright.generate(deep("llama"), [1, 2], "layerskip", {"exit_layer": 5})
    for options, words in (({"exit_layer": 0}, "exit_layer"), ({"tokens": 0}, "tokens")):
        with pytest.raises((InputError, UnknownOption), match=words):
            treewright.generate(deep("llama"), [1, 2], "layerskip", options)


def test_a_model_without_layers_is_refused(deep: Any):
    with pytest.raises(CapabilityError, match="needs layers"):
        treewright.generate(deep("mamba"), [1, 2], "layerskip")
