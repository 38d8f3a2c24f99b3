"""What the tests of steering share: the law of a recipe on exact tables, through the engine."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest

from treewright.core.request import Sampling
from treewright.testing.bench import Bench, Setting, parts_of
from treewright.testing.enumerate import Case


@pytest.fixture(scope="session")
def case_of() -> Callable[..., Case]:
    """case_of(method, options, temperature): three ragged rows; the second one's law is asked for."""

    def make(method: str, options: dict | None = None, temperature: float = 1.0, tokens: int = 3, vocabulary: int = 3) -> Case:
        parts, roles = parts_of(method, options)
        setting = Setting(method, Sampling(temperature), tokens=tokens, vocabulary=vocabulary, fenced=False, warm=True)
        return Bench(parts, roles, likeness=0.3).case(setting)

    return make


@cache
def six_layers(family: str) -> Any:
    import torch
    import transformers as t

    llama = dict(vocab_size=61, hidden_size=24, intermediate_size=40, num_attention_heads=2, num_key_value_heads=1)
    config, kind = {
        "llama": lambda: (t.LlamaConfig(**llama, num_hidden_layers=6, initializer_range=0.25), t.LlamaForCausalLM),
        "gpt2": lambda: (
            t.GPT2Config(vocab_size=61, n_embd=24, n_head=2, n_layer=6, n_positions=96, initializer_range=0.25), t.GPT2LMHeadModel
        ),
    }[family]()  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(5)
        return kind(config).eval().double()


@pytest.fixture(scope="session")
def network() -> Callable[[str], Any]:
    """network("llama" or "gpt2"): a tiny transformers model of six layers in float64; GPT-2's embeddings are tied."""
    return six_layers


@pytest.fixture(scope="session")
def causal() -> Callable[[str], Any]:
    """The same behind the protocol."""
    from treewright.models.causal import CausalModel

    return cache(lambda family: CausalModel(six_layers(family)))
