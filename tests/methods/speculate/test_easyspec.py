"""EasySpec: one layer a group is ordinary speculative sampling, any group is exact, and the first draft of a round always is
the draft model's own."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import treewright
from treewright.core.errors import CapabilityError, InputError, UnknownOption
from treewright.core.request import Sampling
from treewright.methods.speculate.easyspec import Config, parts
from treewright.models.tables import Table
from treewright.testing import laws

TARGET = Table(6, seed=7)
DRAFT = Table(6, seed=8, like=TARGET, likeness=0.7)
PROMPTS = [(1, 0), (3,), (5, 2, 4, 0)]
RAGGED = [[3, 14, 15, 9, 26], [5], [35, 8, 9, 7, 9, 3]]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_one_layer_a_group_is_speculative_sampling(temperature: float, deep: Any):
    settings = dict(max_new_tokens=18, temperature=temperature, seed=2, models={"draft": deep("gpt2")})
    ours = treewright.generate(deep("llama"), RAGGED, "easyspec", {"group": 1, "expansion": [1, 1, 1]}, **settings)
    theirs = treewright.generate(deep("llama"), RAGGED, "speculative_sampling", {"tokens": 3}, **settings)
    assert [result.tokens for result in ours] == [result.tokens for result in theirs]
    for one, other in zip(ours, theirs, strict=True):
        assert [step.token for step in one.trace.steps] == [step.token for step in other.trace.steps]


def test_one_layer_a_group_grows_specinfers_tree(decode: Any):
    settings = dict(max_new_tokens=20, sampling=Sampling(0.8), seed=4)
    ours = decode(TARGET, "easyspec", PROMPTS, {"group": 1, "expansion": (2, 1, 2)}, DRAFT, **settings)
    theirs = decode(TARGET, "specinfer", PROMPTS, {"expansion": (2, 1, 2)}, DRAFT, **settings)
    assert ours.tokens == theirs.tokens
    assert [step.parent for step in ours.trace().steps] == [step.parent for step in theirs.trace().steps]


@pytest.mark.parametrize("group", [2, 4, 9])
def test_greedy_text_of_networks_is_that_of_plain_decoding(group: int, says_what_plain_says: Any):
    results = says_what_plain_says("easyspec", {"group": group, "expansion": [2, 1]}, models=["draft"])
    assert sum(len(step.accepted) for result in results for step in result.trace.steps) > 0


def test_the_target_as_its_own_draft_is_not_always_accepted_in_groups(deep: Any):
    """The limit that groups leave: in the model's own order everything is accepted, side by side it is not."""
    settings = dict(max_new_tokens=20, models={"draft": deep("llama")})
    emitted = {}
    for group in (1, 2):
        found = treewright.generate(deep("llama"), RAGGED[0], "easyspec", {"group": group, "expansion": [1, 1, 1]}, **settings)
        emitted[group] = [len(step.emitted) for step in found.trace.steps[:-1]]
    assert set(emitted[1]) == {4}
    # The first draft comes of the exact forward, so it is always right.
    assert min(emitted[2]) >= 2 and set(emitted[2]) != {4}


def test_errors_of_groups_do_not_stay(deep: Any, decode: Any, watcher: Any):
    """In every round the first draft is the argmax of the draft model's own forward over the whole text, without any memory."""
    network = deep("gpt2").model

    def look(outcome: Any) -> int:
        round, checked = outcome.round, 0
        for row, emitted in enumerate(outcome.emitted):
            text = round.text.of(row)
            prefix = text[: len(text) - len(emitted)]
            if round.forest.columns > 1 and round.forest.token[row, 1] >= 0:
                with torch.no_grad():
                    logits = network(torch.from_numpy(prefix)[None], use_cache=False).logits[0, -1]
                assert int(round.forest.token[row, 1]) == int(logits.argmax())
                checked += 1
        return checked

    watch = watcher(look)
    method = parts(Config(group=3, expansion=(1, 1, 1, 1)))
    decode(deep("llama").protocol, method, RAGGED, draft=deep("gpt2").protocol, observers=[watch], max_new_tokens=20)
    assert sum(watch.seen) > 30


def test_a_round_reads_what_is_new_once_in_full_and_drafts_in_groups(deep: Any):
    settings = dict(max_new_tokens=12, models={"draft": deep("llama")})
    found = treewright.generate(deep("gpt2"), RAGGED[0], "easyspec", {"group": 2, "expansion": [1, 1, 1]}, **settings)
    calls = [call for call in found.trace.calls if call.kind != "prefill"]
    # A forward in groups runs every layer, so it is a full one.
    assert [(call.model, call.kind) for call in calls[:4]] == [("draft", "score")] * 3 + [("target", "score")]
    emitted = [len(step.emitted) for step in found.trace.steps]
    read = [
        call.columns for before, call in zip([calls[3], *calls], calls, strict=False) if before.model == "target" != call.model
    ]
    assert read[0] == 1 and read[1:] == emitted[: len(read) - 1]


def test_the_law_holds_for_chains():
    assert laws.lossless("easyspec", {"expansion": [1, 1], "group": 3}).worst <= 1e-9


@pytest.mark.parametrize(("expansion", "claims"), [((1, 1, 1), 4), ((2, 1, 2), 9), ((3,), 4)])
def test_claims_of_a_tree(expansion: tuple[int, ...], claims: int):
    assert parts(Config(expansion=expansion)).claims == claims


def test_bad_options_are_one_sentence(deep: Any):
    for options in ({"group": 0}, {"expansion": []}, {"expansion": [2, 0]}):
        with pytest.raises((InputError, UnknownOption), match=next(iter(options))):
            treewright.generate(deep("llama"), [1, 2], "easyspec", options, models={"draft": deep("gpt2")})


def test_a_draft_model_without_layers_is_refused(deep: Any):
    with pytest.raises(CapabilityError, match=r"easyspec' needs layers of the model for the role 'draft'"):
        treewright.generate(deep("llama"), [1, 2], "easyspec", models={"draft": deep("mamba")})
    treewright.generate(deep("mamba"), [1, 2], "easyspec", models={"draft": deep("llama")}, max_new_tokens=2)
