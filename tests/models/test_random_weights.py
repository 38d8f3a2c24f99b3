"""Random-weight models: the sizes they promise, the same weights each time, and an error that lists the sizes."""

from __future__ import annotations

import pytest
import torch
from transformers import LlamaForCausalLM

from treewright.api import generate, load
from treewright.core.errors import ModelError
from treewright.models import random_weights


@pytest.mark.parametrize(("size", "millions"), [("0.1b", 100), ("0.9b", 877)])
def test_a_size_holds_the_parameters_it_names(size: str, millions: int) -> None:
    with torch.device("meta"):
        model = LlamaForCausalLM(random_weights.configuration(size))
    assert round(sum(parameter.numel() for parameter in model.parameters()) / 1e6) == millions


def test_weights_are_the_same_each_time_and_leave_the_random_state_alone() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, second = random_weights.random_llama("tiny"), random_weights.random_llama("tiny")
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first.lm_head.weight, second.lm_head.weight)
    assert not torch.equal(first.lm_head.weight, random_weights.random_llama("tiny", seed=1).lm_head.weight)


def test_load_takes_the_name_and_the_dtype() -> None:
    loaded = load("random:tiny", dtype="bfloat16")
    assert loaded.name == "random:tiny" and loaded.model.dtype is torch.bfloat16 and loaded.tokenizer is None
    assert len(generate(loaded, [1, 2, 3], max_new_tokens=4).tokens) == 4


def test_an_unknown_size_is_refused_with_the_sizes() -> None:
    with pytest.raises(ModelError, match=r"random:7b.*random:0\.1b, random:0\.9b"):
        load("random:7b")
