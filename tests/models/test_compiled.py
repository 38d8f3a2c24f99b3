"""The compiled verify step: the same answers as eager, shapes padded to buckets, and an error that can be understood."""

from __future__ import annotations

import pytest

from treewright.core.errors import ModelError
from treewright.models.causal import CausalModel
from treewright.models.compiled import COLUMNS, bucket


def test_buckets_hold_what_they_are_asked_for():
    assert all(bucket(columns) >= columns for columns in range(1, 300))
    assert [bucket(columns) for columns in (1, 3, 9, 33, 96)] == [1, 4, 16, 48, 96]
    assert all(bucket(columns) == columns for columns in COLUMNS)
    # A bucket is never more than twice what is needed, or every small tree would cost a large one.
    assert all(bucket(columns) < 2 * columns for columns in range(2, 300))


def test_a_model_that_does_not_compile_is_one_clear_error(network, decode, monkeypatch):
    import torch

    def broken(*args: object, **options: object) -> object:
        def step(*inputs: object) -> object:
            raise RuntimeError("no compiler here\nand a long story")

        return step

    monkeypatch.setattr(torch, "compile", broken)
    model = CausalModel(network("llama", "float32"), compile=True)
    with pytest.raises(ModelError, match=r"LlamaForCausalLM cannot be compiled .*\(no compiler here\)"):
        decode(model, "plain", [[1, 2]], max_new_tokens=3)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["llama", "qwen3", "gpt2"])
def test_compiled_trees_equal_plain_forwards(family, network, twin_of):
    model = CausalModel(network(family, "float32"), compile=True)
    twin = twin_of(model, [[5], [3, 8, 1, 9, 22, 4, 17], [7, 7, 2]], seed=1)
    for _ in range(3):
        forest = twin.forest()
        twin.grow(forest, 6, shared=True)
        assert twin.error(forest, twin.session.score(forest)) <= 1e-5
        twin.commit(forest, extra=1)
    # Three rows of seven columns are padded to one graph of four rows of eight.
    assert len(model.compiled._steps) == 1


@pytest.mark.slow
@pytest.mark.parametrize("family", ["llama", "qwen3", "gpt2"])
def test_compiled_decoding_equals_transformers(family, network, reference, decode):
    model = CausalModel(network(family, "float32"), compile=True)
    prompts = [(5, 9, 14, 3)]
    expected = reference(family, "float32", prompts, 24)
    assert decode(model, "plain", prompts, max_new_tokens=24).tokens == expected
    memories: dict[object, object] = {}
    for _ in range(2):
        recycled = decode(model, "token_recycling", prompts, {"nodes": 7}, memories=memories, max_new_tokens=24)
        assert recycled.tokens == expected
    assert recycled.accepted() > 3


@pytest.mark.gpu
@pytest.mark.parametrize("family", ["llama", "qwen3", "gpt2"])
def test_compiled_decoding_on_a_gpu(family, network, reference, decode):
    import copy

    prompts = [(5, 9, 14, 3)]
    model = CausalModel(copy.deepcopy(network(family, "float32")).to("cuda"), compile=True)
    expected = reference(family, "float32", prompts, 24)
    assert decode(model, "token_recycling", prompts, {"nodes": 7}, max_new_tokens=24).tokens == expected


def test_graphs_are_forgotten_where_a_weight_changed(network):
    """They hold the weights as they were."""
    import torch

    model = network("llama", "float32")
    step = CausalModel(model, compile=True).compiled
    step.refresh()
    for change in (lambda weight: weight.data.add_(1), lambda weight: weight.data.__setitem__((0, 1), 7.0), None):
        step._steps = {(1,): None}
        step.refresh()
        assert step._steps, "nothing had changed"
        if change is not None:
            with torch.no_grad():
                change(model.lm_head.weight)
        else:
            model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach() * 2)
        step.refresh()
        assert not step._steps
