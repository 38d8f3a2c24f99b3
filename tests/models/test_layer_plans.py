"""Forwards through a part of the layers, against models whose other parts are really gone."""

from __future__ import annotations

import copy
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from treewright.core.layers import LayerPlan
from treewright.models.layer_plans import find_layers
from treewright.models.tables import Table

FAMILIES = ["llama", "qwen3", "gpt2", "gemma3", "mistral"]
OUTPUTS = {"llama": ("self_attn.o_proj", "mlp.down_proj"), "mistral": ("self_attn.o_proj", "mlp.down_proj")}
PROMPTS = [[5], [3, 8, 1, 9, 22, 4, 17, 60, 2], [7, 7, 2]]


def without_parts(network, plan):
    """A copy of a model whose parts that do not run give zeros."""
    model = copy.deepcopy(network)
    for number, layer in enumerate(model.model.layers):
        for runs, name in zip((plan.attention, plan.mlp), OUTPUTS["llama"], strict=True):
            if number not in runs:
                layer.get_submodule(name).weight.data.zero_()
    return model


def continued(network, partial, text, path):
    """Logits after each token of the path: all of the text but its last token read by the whole model, the rest in part."""
    from transformers import DynamicCache

    cache = DynamicCache()
    with torch.no_grad():
        if len(text) > 1:
            network(torch.tensor([text[:-1]]), past_key_values=cache, use_cache=True)
        return partial(torch.tensor([[text[-1], *path]]), past_key_values=cache, use_cache=True).logits[0].numpy()


def plans_of(depth):
    return [
        LayerPlan.until(depth, 1), LayerPlan.without(depth, attention={0}), LayerPlan.without(depth, mlp={depth - 1}),
        LayerPlan.without(depth, {0, 1}, {0}), LayerPlan.whole(depth),
    ]  # fmt: skip


@pytest.mark.parametrize("family", ["llama", "mistral"])
def test_a_sketch_is_the_rest_of_the_model_on_the_memory_of_the_whole(family, causal, network, twin_of):
    model = causal(family, "float64")
    twin = twin_of(model, PROMPTS, seed=1)
    for plan in plans_of(model.capabilities.layers):
        partial = without_parts(network(family, "float64"), plan)
        forest = twin.forest()
        for _ in range(2):
            twin.grow(forest, 3, shared=False)
            answers = twin.session.sketch(forest, plan)
        for row, text in enumerate(twin.texts):
            for column in range(forest.columns):
                expected = continued(network(family, "float64"), partial, text, forest.path_tokens(row, column))[-1]
                assert np.abs(answers.row(row, column) - expected).max() < 1e-9
        # What is scored after a sketch, and what a commit keeps, is the whole model's.
        twin.grow(forest, 2, shared=False)
        assert twin.error(forest, twin.session.score(forest)) < 1e-10
        twin.commit(forest, extra=1)
    assert twin.round() < 1e-10


def test_claims_that_were_scored_keep_their_answers_in_a_sketch(causal, twin_of):
    model = causal("llama", "float64")
    twin = twin_of(model, PROMPTS, seed=2)
    plan = LayerPlan.until(model.capabilities.layers, 1)
    forest = twin.forest()
    twin.grow(forest, 2, shared=True)
    scored = twin.session.score(forest).logits.clone()
    twin.grow(forest, 2, shared=True)
    sketched = twin.session.sketch(forest, plan)
    assert torch.equal(sketched.logits[:, :3], scored)
    assert sketched.logits.shape[1] == 5 and twin.error(forest, sketched) > 1e-3
    assert twin.error(forest, twin.session.score(forest)) < 1e-10
    twin.commit(forest, extra=1)
    assert twin.round() < 1e-10


def test_a_sketch_that_is_never_scored_leaves_nothing_behind(causal, twin_of):
    model = causal("llama", "float64")
    twin = twin_of(model, PROMPTS, seed=4)
    twin.round()
    forest = twin.forest()
    twin.grow(forest, 3, shared=True)
    twin.session.sketch(forest, LayerPlan.until(model.capabilities.layers, 1))
    twin.commit(forest, extra=1)
    assert twin.round() < 1e-10


def test_a_sketch_costs_one_forward_over_what_is_new(causal, twin_of):
    model = causal("llama", "float32")
    twin = twin_of(model, PROMPTS, seed=5)
    twin.calls.clear()
    depth = model.capabilities.layers
    plan, other = LayerPlan.until(depth, 1), LayerPlan.without(depth, mlp={0})
    forest = twin.forest()
    for _ in range(2):
        twin.grow(forest, 2, shared=True)
        twin.session.sketch(forest, plan)
        twin.session.sketch(forest, plan)
    twin.session.sketch(forest, other)
    assert twin.calls == [("sketch", 3, 3), ("sketch", 3, 2), ("sketch", 3, 5)]


@pytest.mark.parametrize("family", ["table", "gpt2", "llama"])
def test_a_forward_through_all_layers_is_a_call_whoever_asks(family, causal, twin_of):
    """Sessions of all kinds tell it alike, and the share that ran."""
    model = Table(6, seed=1) if family == "table" else causal(family, "float32")
    depth, told = model.capabilities.layers, []
    twin = twin_of(model, [[5], [3, 1, 2], [4, 4]])
    twin.session._record = lambda kind, rows, columns, seconds, share=1.0: told.append((kind, share))
    part, other = LayerPlan.until(depth, 1), LayerPlan.without(depth, attention={0}, mlp={0})
    every = frozenset(range(depth))
    whole, side_by_side = LayerPlan.whole(depth), LayerPlan(depth, every, every, group=2)
    asked = [[part], [whole], [side_by_side], [part] * 3, [part, other, other], [part, whole, part]]
    forest = twin.forest()
    for plans in asked:
        twin.grow(forest, 1, shared=True)
        twin.session.sketch(forest, *plans)
    kinds = [("sketch", 1 / depth), *[("score", 1.0)] * 2, ("sketch", 1 / depth), *[("score", 1.0)] * 2]
    assert told == kinds
    twin.session.score(forest, [part])
    assert told == [*kinds, ("score", 1 / depth)]
    twin.commit(forest, 1)
    first = twin.text.prompt - 1
    for plan in (part, whole):
        twin.session.sketch_text(first, 2, plan)
    assert told[-2:] == kinds[:2]


@pytest.mark.parametrize("family", ["table", "llama"])
def test_a_claim_that_was_scored_since_is_no_sketch_any_more(family, causal, twin_of):
    model = Table(6, seed=1) if family == "table" else causal(family, "float64")
    twin = twin_of(model, [[5], [3, 1, 2]])
    forest, plan = twin.forest(), LayerPlan.until(model.capabilities.layers, 1)
    twin.grow(forest, 2, shared=True)
    twin.session.sketch(forest, plan)
    scored = twin.session.score(forest).logits.clone()
    assert torch.equal(twin.session.sketch(forest, plan).logits, scored)
    twin.grow(forest, 2, shared=True)
    assert torch.equal(twin.session.sketch(forest, plan).logits[:, :3], scored)


@pytest.mark.parametrize("family", ["llama", "mistral"])
def test_rows_may_run_different_parts(family, causal, network, twin_of):
    model = causal(family, "float64")
    depth = model.capabilities.layers
    plans = [LayerPlan.until(depth, 1), LayerPlan.whole(depth), LayerPlan.without(depth, {1}, {0})]
    twin = twin_of(model, PROMPTS, seed=6)
    forest = twin.forest()
    twin.grow(forest, 3, shared=True)
    answers = twin.session.score(forest, plans)
    for row, plan in enumerate(plans):
        partial = without_parts(network(family, "float64"), plan)
        for column in range(forest.columns):
            expected = continued(network(family, "float64"), partial, twin.texts[row], forest.path_tokens(row, column))[-1]
            assert np.abs(answers.row(row, column) - expected).max() < 1e-9


@pytest.mark.parametrize("group", [1, 2])
def test_attention_of_a_group_reads_what_its_first_layer_reads(group, causal, network, twin_of):
    model = causal("llama", "float64")
    twin = twin_of(model, [[5]], seed=7)
    forest = twin.forest()
    token = np.array([[9, 3, 12]])
    forest.grow(range(3), token)
    depth = model.capabilities.layers
    plan = LayerPlan(depth, frozenset(range(depth)), frozenset(range(depth)), group)
    found = twin.session.sketch(forest, plan).logits[0].numpy()
    expected = grouped(network("llama", "float64"), [5, *token[0].tolist()], group)
    assert np.abs(found - expected).max() < 1e-9
    whole = twin.session.score(forest).logits[0].numpy()
    assert (np.abs(found - whole).max() < 1e-9) == (group == 1)


def grouped(network, tokens, group):
    """A llama by hand: in each group of layers the attention of all reads the first one's input, feed-forwards stay in order."""
    inner = network.model
    states = inner.embed_tokens(torch.tensor([tokens]))
    positions = torch.arange(len(tokens))[None]
    where = inner.rotary_emb(states, position_ids=positions)
    mask = torch.full((len(tokens), len(tokens)), torch.finfo(states.dtype).min, dtype=states.dtype).triu(1)[None, None]
    with torch.no_grad():
        for number, layer in enumerate(inner.layers):
            if number % group == 0:
                entered = states
            read, _ = layer.self_attn(layer.input_layernorm(entered), position_embeddings=where, attention_mask=mask)
            states = states + read
            states = states + layer.mlp(layer.post_attention_layernorm(states))
        return network.lm_head(inner.norm(states))[0].numpy()


@pytest.mark.parametrize("family", FAMILIES)
def test_layers_are_found(family, causal):
    model = causal(family, "float32")
    assert model.capabilities.layers == model.config.num_hidden_layers


def test_a_model_whose_parts_do_more_than_add_has_no_layers(network):
    class Louder(torch.nn.Module):
        def __init__(self, layer):
            super().__init__()
            self.self_attn, self.mlp, self.inner = layer.self_attn, layer.mlp, [layer]

        def forward(self, hidden_states, **named):
            return 1.5 * self.inner[0](hidden_states, **named)

    model = copy.deepcopy(network("llama", "float32"))
    assert find_layers(model) is not None
    model.model.layers[0] = Louder(model.model.layers[0])
    assert find_layers(model) is None


def test_a_forward_leaves_the_model_as_it_was(network):
    model = copy.deepcopy(network("llama", "float32"))
    before = {name: set(vars(module)) for name, module in model.named_modules()}
    layers = find_layers(model)
    plan = LayerPlan(len(layers), frozenset({0}), frozenset(), group=2)
    with pytest.raises(ZeroDivisionError), layers.running([plan]):
        raise ZeroDivisionError
    assert {name: set(vars(module)) for name, module in model.named_modules()} == before


def test_shares():
    assert LayerPlan.whole(4).is_whole and LayerPlan.until(4, 1).share == 0.25
    assert LayerPlan.without(4, {0}, {1, 2}).share == 5 / 8 and not LayerPlan.without(4, {0}).is_whole


@pytest.mark.parametrize("family", ["llama", "mistral"])
def test_text_is_sketched_on_the_memory_of_what_comes_before_it(family, causal, network, twin_of):
    model = causal(family, "float64")
    twin = twin_of(model, PROMPTS, seed=8)
    for _ in range(3):
        twin.round(extra=3)
    plan, count = LayerPlan.without(model.capabilities.layers, {1}, {0}), 4
    partial = without_parts(network(family, "float64"), plan)
    lengths = np.array([len(prompt) for prompt in PROMPTS])
    for first in (lengths - 1, lengths, lengths + np.array([0, 2, 1])):
        answers = twin.session.sketch_text(first, count, plan)
        assert answers.logits.shape[:2] == (3, count)
        for row, text in enumerate(twin.texts):
            begin = int(first[row])
            expected = continued(network(family, "float64"), partial, text[: begin + 1], text[begin + 1 : begin + count])
            for place in range(count):
                assert np.abs(answers.row(row, place) - expected[place]).max() < 1e-9
    # Nothing of it stays.
    assert twin.calls[-1] == ("sketch", 3, count)
    assert twin.round() < 1e-10


def test_text_is_sketched_for_rows_that_are_too_short_as_well(causal, twin_of):
    model = causal("llama", "float64")
    twin = twin_of(model, PROMPTS, seed=9)
    twin.round(extra=1)
    plan = LayerPlan.whole(model.capabilities.layers)
    answers = twin.session.sketch_text(np.array([len(prompt) for prompt in PROMPTS]), 12, plan)
    for row, (prompt, text) in enumerate(zip(PROMPTS, twin.texts, strict=True)):
        for place in range(len(text) - len(prompt)):
            expected = plain_logits(model, text[: len(prompt) + place + 1])
            assert np.abs(answers.row(row, place) - expected).max() < 1e-9
    assert twin.round() < 1e-10


def plain_logits(model, text):
    with torch.no_grad():
        return model.model(torch.tensor([text]), use_cache=False).logits[0, -1].numpy()


def test_text_is_not_sketched_over_live_claims_or_beyond_the_slots(causal, twin_of):
    model = causal("llama", "float64")
    twin = twin_of(model, PROMPTS, seed=10)
    twin.round()
    plan, first = LayerPlan.until(model.capabilities.layers, 1), np.array([len(prompt) for prompt in PROMPTS])
    with pytest.raises(ValueError, match="1000 tokens do not fit"):
        twin.session.sketch_text(first, 1000, plan)
    forest = twin.forest()
    twin.grow(forest, 2, shared=True)
    twin.session.sketch(forest, plan)
    with pytest.raises(ValueError, match="before the claims"):
        twin.session.sketch_text(first, 2, plan)


@pytest.mark.parametrize("family", ["llama", "mistral"])
def test_rows_may_be_sketched_with_different_parts(family, causal, network, twin_of):
    model = causal(family, "float64")
    depth = model.capabilities.layers
    plans = [LayerPlan.until(depth, 1), LayerPlan.whole(depth), LayerPlan.without(depth, {1}, {0})]
    twin = twin_of(model, PROMPTS, seed=11)
    twin.round()
    forest = twin.forest()
    for _ in range(2):
        twin.grow(forest, 2, shared=True)
        answers = twin.session.sketch(forest, *plans)
    for row, plan in enumerate(plans):
        partial = without_parts(network(family, "float64"), plan)
        for column in range(forest.columns):
            expected = continued(network(family, "float64"), partial, twin.texts[row], forest.path_tokens(row, column))[-1]
            assert np.abs(answers.row(row, column) - expected).max() < 1e-9
    assert twin.error(forest, twin.session.score(forest)) < 1e-10


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_another_thread_meets_the_whole_model(family, network):
    model, ids = network(family, "float64"), torch.tensor([PROMPTS[1]])
    layers = find_layers(model)
    with torch.no_grad():
        whole = model(ids).logits
        for plan in plans_of(len(layers))[:4]:
            with layers.running([plan]), ThreadPoolExecutor(1) as other:
                # Gradients are off for each thread on its own.
                beside = other.submit(lambda: model(ids).logits.detach()).result()
                here = model(ids).logits
            assert torch.equal(beside, whole) and not torch.allclose(here, whole)
        assert torch.equal(model(ids).logits, whole)
