"""What the tests of searches share: tiny random models behind the front door, and answers as plain tuples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import pytest

import treewright
from treewright.models.loading import Loaded, load
from treewright.models.tables import Table

ENDS = [5, 9, 13, 20, 27]
PROMPTS = [[3], [7, 1, 30, 12], [2, 2, 8, 25, 14, 6, 11]]


@cache
def network(family: str, dtype: str) -> Any:
    """A model whose weights spread widely enough that its texts end now and then, and do not loop."""
    import torch
    import transformers as t

    shared = dict(vocab_size=31, bos_token_id=1, eos_token_id=ENDS, pad_token_id=0, initializer_range=0.4)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        if family == "llama":
            grouped = dict(hidden_size=32, num_attention_heads=4, num_key_value_heads=2, intermediate_size=48)
            model = t.LlamaForCausalLM(t.LlamaConfig(**shared, **grouped, num_hidden_layers=2, max_position_embeddings=128))
        else:
            model = t.GPT2LMHeadModel(t.GPT2Config(**shared, n_head=4, n_layer=2, n_embd=32, n_positions=128))
    model = model.eval().to(getattr(torch, dtype))
    model.generation_config.eos_token_id, model.generation_config.pad_token_id = ENDS, 0
    return model


@cache
def loaded(family: str, dtype: str) -> Loaded:
    return load(network(family, dtype))


@pytest.fixture(scope="session")
def tiny() -> Callable[[str, str], Loaded]:
    """tiny(family, dtype): a loaded model; `.model` is the transformers one."""
    return loaded


@pytest.fixture(scope="session")
def search() -> Callable[..., list[Any]]:
    """search(model or table seed, method, options, **settings): the results of a ragged batch."""

    def run(model: Any, method: str, options: dict | None = None, prompts: Sequence[Any] = PROMPTS, **settings: Any) -> list[Any]:
        if isinstance(model, int):
            model, prompts = load(Table(6, model, sharpness=1.5)), [[token % 6 for token in prompt] for prompt in prompts]
        return treewright.generate(model, list(prompts), method, options, **{"max_new_tokens": 8, **settings})

    return run


@pytest.fixture(scope="session")
def answers() -> Callable[[Any], list[tuple]]:
    """answers(result): tokens, reason and rounded log weight of every sample."""
    return lambda result: [(tuple(s.tokens), s.finish_reason, round(s.log_weight, 5)) for s in result.samples]
