"""Llama models with random weights, by size: what a model of that size costs, without a download. Their text means nothing."""

from __future__ import annotations

import torch
from transformers import EuroBertConfig, EuroBertForMaskedLM, LlamaConfig, LlamaForCausalLM

from treewright.core.errors import ModelError, choices

PREFIX = "random:"
# Hidden size, layers, heads, key-value heads, intermediate size, vocabulary. Grouped-query heads, as models of 2026 have.
SIZES: dict[str, tuple[int, int, int, int, int, int]] = {
    "tiny": (32, 2, 4, 2, 64, 128),
    "0.1b": (768, 12, 12, 4, 2048, 32_000),
    "0.9b": (2048, 18, 32, 8, 5632, 32_000),
}


def configuration(size: str, dtype: torch.dtype = torch.float32) -> LlamaConfig:
    """The configuration of one of the `SIZES`. Raises ModelError for another."""
    if size not in SIZES:
        raise ModelError(f"unknown random model '{PREFIX}{size}'; {choices(PREFIX + size, (PREFIX + name for name in SIZES))}")
    hidden, layers, heads, shared_heads, intermediate, vocabulary = SIZES[size]
    return LlamaConfig(
        hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=heads, num_key_value_heads=shared_heads,
        intermediate_size=intermediate, vocab_size=vocabulary, max_position_embeddings=4096, tie_word_embeddings=True,
        bos_token_id=0, eos_token_id=None, pad_token_id=None, dtype=dtype,
    )  # fmt: skip


def random_llama(size: str, dtype: torch.dtype | None = None, seed: int = 0) -> LlamaForCausalLM:
    """A Llama of one of the `SIZES` with tied embeddings: 0.1b has 100 M parameters, 0.9b 877 M, tiny 20 k.

    The same weights for the same size, dtype and seed; float32 by default. The caller's random state is left as it was.
    Raises ModelError for an unknown size. Costs seconds for 0.9b, no model call.
    """
    wanted = dtype or torch.float32
    return from_seed(configuration(size, wanted), wanted, seed)


def from_seed(config: LlamaConfig, dtype: torch.dtype, seed: int = 0) -> LlamaForCausalLM:
    """A Llama of this configuration, initialised at random; the caller's random state is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaForCausalLM._from_config(config, dtype=dtype)


def random_masked(vocabulary: int = 24, dtype: torch.dtype = torch.float64, seed: int = 0) -> EuroBertForMaskedLM:
    """A bidirectional model of two layers with wide random weights, whose last id is the mask: for laws, not for timings.

    The same weights for the same arguments; the caller's random state is left as it was.
    """
    config = EuroBertConfig(
        vocab_size=vocabulary, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=64, initializer_range=0.7, bos_token_id=None, eos_token_id=None, pad_token_id=None,
        mask_token_id=vocabulary - 1,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return EuroBertForMaskedLM._from_config(config, dtype=dtype).eval()
