"""The search for what draft_and_verify leaves out, on a network whose third layer hardly does anything."""

from __future__ import annotations

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

import treewright
from treewright.core.errors import CapabilityError, InputError
from treewright.train.skip_sets import find_skip_sets, tokens_gained

PROMPTS = [[3, 14, 15, 9, 26], [5, 8]]


@pytest.fixture(scope="module")
def lazy():
    """Five layers, of which the third adds next to nothing."""
    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=60, hidden_size=32, intermediate_size=48, num_attention_heads=4, num_key_value_heads=2, head_dim=8,
        num_hidden_layers=5, initializer_range=0.25, eos_token_id=None,
    )  # fmt: skip
    network = LlamaForCausalLM(config).double()
    with torch.no_grad():
        for part in (network.model.layers[2].self_attn.o_proj, network.model.layers[2].mlp.down_proj):
            part.weight.mul_(1e-4)
    return treewright.load(network)


def test_the_lazy_layer_is_found(lazy):
    found = find_skip_sets(lazy, PROMPTS, trials=25, new_tokens=16, options={"threshold": 0.0, "adapt": False})
    assert 2 in found.skip_attention and 2 in found.skip_mlp
    assert set(found.skip_attention) | set(found.skip_mlp) <= {1, 2, 3}
    assert found.score > found.start
    again = tokens_gained(lazy, PROMPTS, found.options | {"threshold": 0.0, "adapt": False}, 16, "layers")
    assert again == pytest.approx(found.score)


def test_layers_of_a_run_by_hand(lazy):
    """Three drafts of four fifths of the layers and a whole forward, and all are accepted: 4 tokens a round."""
    options = {"skip_attention": [2], "skip_mlp": [2], "tokens": 3, "threshold": 0.0}
    assert tokens_gained(lazy, PROMPTS, options, 16, "layers") == pytest.approx(4 / (3 * 0.8 + 1))
    assert tokens_gained(lazy, PROMPTS, options, 16, "seconds") > 0


def test_bad_arguments_are_one_sentence(lazy):
    with pytest.raises(InputError, match="no prompts"):
        find_skip_sets(lazy, [])
    with pytest.raises(InputError, match="trials is 0"):
        find_skip_sets(lazy, PROMPTS, trials=0)
    with pytest.raises(InputError, match="objective is speed"):
        find_skip_sets(lazy, PROMPTS, objective="speed")
    with pytest.raises(CapabilityError, match=r"has 2 layers that can run in part; give one with 3 or more"):
        find_skip_sets("default-draft", PROMPTS)
