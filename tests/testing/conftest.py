"""Tiny random models. Wide initial weights, so that logits differ and greedy text does not loop."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from transformers import Gemma3ForCausalLM, Gemma3TextConfig, LlamaConfig, LlamaForCausalLM

from treewright.models.loading import Loaded, load

SIZES = dict(vocab_size=60, hidden_size=32, intermediate_size=48, num_attention_heads=4, num_key_value_heads=2, head_dim=8)


@pytest.fixture
def tiny_llama() -> Callable[..., Loaded]:
    """Makes a random Llama of two layers."""

    def make(dtype: torch.dtype = torch.float64, seed: int = 0) -> Loaded:
        torch.manual_seed(seed)
        config = LlamaConfig(**SIZES, num_hidden_layers=2, max_position_embeddings=128, initializer_range=0.4, eos_token_id=None)
        return load(LlamaForCausalLM(config).to(dtype))

    return make


@pytest.fixture
def tiny_gemma() -> Loaded:
    """A random Gemma-3 whose sliding window is shorter than the texts."""
    torch.manual_seed(1)
    config = Gemma3TextConfig(
        **SIZES, num_hidden_layers=3, max_position_embeddings=128, sliding_window=5, initializer_range=0.4,
        layer_types=["sliding_attention", "full_attention", "sliding_attention"], eos_token_id=None,
    )  # fmt: skip
    return load(Gemma3ForCausalLM(config).double())
