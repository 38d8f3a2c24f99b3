"""Tiny random models in float32, initialised wide enough that their greedy text does not loop, over so few tokens that
drafts are often accepted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

VOCABULARY = 24


def make_network(
    family: str, seed: int = 0, vocabulary: int = VOCABULARY, dtype: torch.dtype = torch.float32, shaken: float = 0.0,
    **changes: Any,
) -> Any:  # fmt: skip
    from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    ends: dict[str, Any] = {"bos_token_id": 1, "eos_token_id": None, "pad_token_id": 0}
    if family == "llama":
        shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
                 "num_key_value_heads": 2, "max_position_embeddings": 256, "initializer_range": 0.4}  # fmt: skip
        network: Any = LlamaForCausalLM(LlamaConfig(vocab_size=vocabulary, **{**shape, **ends, **changes}))
    else:
        shape = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256, "initializer_range": 0.4}
        network = GPT2LMHeadModel(GPT2Config(vocab_size=vocabulary, **{**shape, **ends, **changes}))
    with torch.no_grad():
        for weight in network.parameters():
            weight += shaken * torch.randn_like(weight)
    return network.to(dtype).eval()


@pytest.fixture(scope="session")
def network() -> Callable[..., Any]:
    """Makes a model: network("llama" or "gpt2", seed, vocabulary, dtype, **config); with `shaken`, one that is like the model
    of the same seed but for noise of that size on its weights."""
    return make_network


@pytest.fixture(scope="session")
def ragged() -> tuple[torch.Tensor, torch.Tensor]:
    """Four prompts of 3 to 12 tokens, padded on the left: input_ids and attention_mask [4, 12]."""
    generator = torch.Generator().manual_seed(5)
    ids = torch.randint(2, VOCABULARY, (4, 12), generator=generator)
    mask = torch.ones_like(ids)
    for row, length in enumerate((12, 3, 7, 9)):
        ids[row, : 12 - length], mask[row, : 12 - length] = 0, 0
    return ids, mask
