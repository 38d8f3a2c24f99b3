"""A grown model is the small one in another shape: same logits, same greedy texts, ids beyond the vocabulary never; what does not
fit is refused in a sentence."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

import treewright as tw
from treewright.core.errors import ModelError
from treewright.models import random_weights
from treewright.models.grown import grow, grown_llama

SMALL: dict[str, Any] = {
    "vocab_size": 40, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "initializer_range": 0.4, "tie_word_embeddings": True, "pad_token_id": 1,
    "bos_token_id": 0, "eos_token_id": None, "max_position_embeddings": 64,
}  # fmt: skip
LARGE = SMALL | {"vocab_size": 60, "hidden_size": 48, "intermediate_size": 40, "num_hidden_layers": 5, "num_attention_heads": 12}


def small(seed: int = 0, **changes: Any) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    network = LlamaForCausalLM(LlamaConfig(**(SMALL | changes))).double().eval()
    with torch.no_grad():
        for name, weight in network.named_parameters():
            # Norms begin as ones, which would hide one that is put in the wrong place.
            if "norm" in name:
                weight += 0.3 * torch.randn_like(weight)
    return network


@pytest.fixture
def large() -> LlamaForCausalLM:
    return grow(small(), LlamaConfig(**LARGE))


def test_logits_are_those_of_the_small_model(large: LlamaForCausalLM) -> None:
    # The norms calculate in float32 in every dtype.
    ids = torch.randint(40, (2, 20), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected, found = small()(ids).logits, large(ids).logits
    assert expected.abs().max() > 1
    torch.testing.assert_close(found[..., :40], expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(found[..., 40:], found[..., 1:2].expand(-1, -1, 20))


@pytest.mark.parametrize("method", ["plain", "token_recycling"])
def test_greedy_texts_and_rounds_are_those_of_the_small_model(large: LlamaForCausalLM, method: str) -> None:
    here, there = (tw.generate(tw.load(network), [3, 5, 7], method, max_new_tokens=40) for network in (small(), large))
    assert here.tokens == there.tokens and len(set(here.tokens)) > 3
    assert len(here.trace.steps) == len(there.trace.steps)


def test_heads_stay_with_their_keys_and_values_among_more_of_both() -> None:
    ids = torch.randint(40, (1, 20), generator=torch.Generator().manual_seed(1))
    more = grow(small(), LlamaConfig(**(LARGE | {"num_key_value_heads": 4})))
    with torch.no_grad():
        torch.testing.assert_close(more(ids).logits[..., :40], small()(ids).logits, rtol=0, atol=1e-5)


def test_what_is_not_needed_is_random_and_writes_nothing(large: LlamaForCausalLM) -> None:
    spread = [bool(layer.mlp.down_proj.weight.any()) for layer in large.model.layers]
    assert spread == [True, False, True, False, False]
    assert all(layer.self_attn.q_proj.weight.any(dim=1).all() for layer in large.model.layers)


def test_a_grown_bundled_model_has_the_size_it_names_and_the_bundled_texts() -> None:
    loaded, bundled = tw.load("grown:0.1b", dtype="float32"), tw.load("default", dtype="float32")
    assert loaded.name == "grown:0.1b" and loaded.tokenizer is not None and loaded.eos_ids == bundled.eos_ids
    shape = random_weights.configuration("0.1b")
    for name in ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "vocab_size"):
        assert getattr(loaded.model.config, name) == getattr(shape, name)
    ids = bundled.tokenizer("def add(a, b):\n    return", return_tensors="pt")["input_ids"]  # type: ignore[misc]
    with torch.no_grad():
        torch.testing.assert_close(loaded.model(ids).logits[..., :4096], bundled.model(ids).logits, rtol=0, atol=1e-3)


def test_a_grown_model_goes_through_a_folder(large: LlamaForCausalLM, tmp_path: Any) -> None:
    large.save_pretrained(tmp_path)
    ids = torch.tensor([[2, 3, 4]])
    with torch.no_grad():
        torch.testing.assert_close(LlamaForCausalLM.from_pretrained(tmp_path, dtype=torch.float64)(ids).logits, large(ids).logits)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"head_dim": 4}, "head_dim is 8 .* and 4 in the size wanted"),
        ({"attention_bias": True}, "attention_bias is False .* and True in the size wanted"),
        ({"hidden_size": 60}, "hidden_size is 16 .* does not divide the 60"),
        ({"num_key_value_heads": 1}, "num_key_value_heads is 2 .* and 1 .* as many or more"),
        ({"num_key_value_heads": 12}, "heads for each key-value head is 2 .* and 1 .* as many or more"),
        ({"num_hidden_layers": 1}, "num_hidden_layers is 2 .* and 1 .* as many or more"),
        ({"vocab_size": 39}, "vocab_size is 40 .* and 39 .* as many or more"),
    ],
)
def test_what_does_not_fit_is_refused(changes: dict[str, int], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        grow(small(), LlamaConfig(**(LARGE | changes)))


def test_other_models_and_sizes_are_refused() -> None:
    with pytest.raises(ModelError, match="GPT2LMHeadModel cannot be grown; give a Llama"):
        grown_llama(GPT2LMHeadModel(GPT2Config(vocab_size=8, n_embd=8, n_layer=1, n_head=1)), "0.1b")
    with pytest.raises(ModelError, match="LlamaForCausalLM cannot be grown; give a Llama with tied embeddings"):
        grown_llama(small(tie_word_embeddings=False), "0.1b")
    with pytest.raises(ModelError, match=r"head_dim is 64 .* and 8 in the size wanted"):
        tw.load("grown:tiny")
    for name in ("attention_bias", "mlp_bias"):
        with pytest.raises(
            ModelError, match=f"{name} is True in the model to grow, and biases are not grown; give a Llama without"
        ):
            grow(small(**{name: True}), LlamaConfig(**(LARGE | {name: True})))
    with pytest.raises(ModelError, match=r"unknown size '7b' to grow to; allowed: 0\.1b, 0\.9b(;|$)"):
        tw.load("grown:7b")
    with pytest.raises(ModelError, match=r"unknown size '7b' to grow to; allowed: tiny$"):
        grown_llama(small(), "7b")
    with pytest.raises(ModelError, match="GPT2LMHeadModel cannot be grown"):
        grown_llama(GPT2LMHeadModel(GPT2Config(vocab_size=8, n_embd=8, n_layer=1, n_head=1)), "7b")
