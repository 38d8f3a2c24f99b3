"""A small model's function in the shape of a larger one: its texts at the larger one's cost, without a download.

Speculation can be measured on random weights only as far as costs go, for their text is one token over and over. Here the texts
are the small model's. The hidden vector is that of the small model several times over, which leaves the root mean square as it
was; norms let only the first of the copies through, matrices write all of them. Heads, layers and units of the larger shape that
are not needed are random, but write nothing. So the logits are the small model's, up to the order in which sums are rounded. The
idea of growing a network without changing what it calculates is Net2Net's (Chen, Goodfellow and Shlens 2016,
https://arxiv.org/abs/1511.05641).

Ids beyond the small model's vocabulary have the row of its padding token, so at temperature 0 they come as little as that. Above
it each of them is as likely as that token, and they are many: take such a model for greedy texts.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from treewright.core.errors import ModelError, choices
from treewright.models.random_weights import SIZES, configuration, from_seed

PREFIX = "grown:"
SOURCE = "default"
"""The bundled model that `load("grown:SIZE")` grows."""
KEPT = (
    "bos_token_id", "eos_token_id", "pad_token_id", "hidden_act", "rms_norm_eps", "rope_parameters", "max_position_embeddings",
)  # fmt: skip
"""What is the small model's in every shape."""
BIASES = ("attention_bias", "mlp_bias")


def grown_llama(source: PreTrainedModel, size: str) -> LlamaForCausalLM:
    """`source`'s function in the shape of `random:SIZE`, in its dtype. Costs seconds for 0.1b, no model call.

    Raises ModelError for an unknown size, and what `grow` raises.
    """
    if size not in SIZES:
        _check_source(source)
        sizes = [name for name in SIZES if _has_room(name, source)]
        raise ModelError(f"unknown size '{size}' to grow to; {choices(size, sizes)}")
    return grow(source, configuration(size, source.dtype))


def grow(source: PreTrainedModel, shape: LlamaConfig) -> LlamaForCausalLM:
    """`source`'s function in another shape: that of the configuration; token ids, positions and norms stay the small model's.

    Raises ModelError for a model that is no Llama with tied embeddings, a padding token and no biases, and for a shape without
    room for it: the hidden size must be a multiple of the small one's, heads be as wide, and everything else as many or more.
    """
    _check_source(source)
    small: Any = source.config
    wanted = copy.deepcopy(shape)
    for name in KEPT:
        setattr(wanted, name, copy.deepcopy(getattr(small, name)))
    _check(small, wanted)
    large = from_seed(wanted, source.dtype).eval()
    copies, depth = wanted.hidden_size // small.hidden_size, small.num_hidden_layers
    # The small model's layers are spread over the larger one's.
    homes = {number * wanted.num_hidden_layers // depth: layer for number, layer in enumerate(source.model.layers)}
    with torch.no_grad():
        rows, known = large.model.embed_tokens.weight, source.model.embed_tokens.weight
        rows[:] = known[small.pad_token_id].repeat(copies)
        rows[: len(known)] = known.repeat(1, copies)
        _let_through(large.model.norm.weight, source.model.norm.weight)
        for number, layer in enumerate(large.model.layers):
            if number in homes:
                _place(layer, homes[number], small, wanted)
            else:
                layer.self_attn.o_proj.weight.zero_()
                layer.mlp.down_proj.weight.zero_()
    return large


def _check_source(source: PreTrainedModel) -> None:
    """Raises ModelError for a model that cannot be grown to any shape."""
    if not isinstance(source, LlamaForCausalLM) or not source.config.tie_word_embeddings or source.config.pad_token_id is None:
        raise ModelError(f"{type(source).__name__} cannot be grown; give a Llama with tied embeddings and a padding token")
    for name in BIASES:
        if getattr(source.config, name):
            raise ModelError(f"{name} is True in the model to grow, and biases are not grown; give a Llama without them")


def _has_room(size: str, source: PreTrainedModel) -> bool:
    try:
        _check(source.config, configuration(size))
    except ModelError:
        return False
    return True


def _check(small: Any, wanted: Any) -> None:
    """Raises ModelError where a configuration has no room for the small one."""
    for name in ("head_dim", *BIASES):
        if getattr(small, name) != getattr(wanted, name):
            raise ModelError(
                f"{name} is {getattr(small, name)} in the model to grow and {getattr(wanted, name)} in the size wanted; they "
                "must be equal"
            )
    if wanted.hidden_size % small.hidden_size:
        raise ModelError(
            f"hidden_size is {small.hidden_size} in the model to grow, which does not divide the {wanted.hidden_size} of the "
            "size wanted; choose another size"
        )
    names = ("num_hidden_layers", "num_key_value_heads", "intermediate_size", "vocab_size")
    room = [(name, getattr(small, name), getattr(wanted, name)) for name in names]
    few, many = (config.num_attention_heads // config.num_key_value_heads for config in (small, wanted))
    for name, needed, there in [*room, ("heads for each key-value head", few, many)]:
        if there < needed:
            raise ModelError(
                f"{name} is {needed} in the model to grow and {there} in the size wanted; choose a size with as many or more"
            )


def _place(layer: Any, source: Any, small: Any, wanted: Any) -> None:
    """Makes a layer do what a layer of the small model does, on the first copy, and write it to all."""
    heads = _heads(small, wanted)
    ours, theirs = layer.self_attn, source.self_attn
    _read(ours.q_proj.weight, theirs.q_proj.weight, heads)
    _read(ours.k_proj.weight, theirs.k_proj.weight)
    _read(ours.v_proj.weight, theirs.v_proj.weight)
    _write(ours.o_proj.weight, theirs.o_proj.weight, heads)
    _read(layer.mlp.gate_proj.weight, source.mlp.gate_proj.weight)
    _read(layer.mlp.up_proj.weight, source.mlp.up_proj.weight)
    _write(layer.mlp.down_proj.weight, source.mlp.down_proj.weight, range(small.intermediate_size))
    for norm in ("input_layernorm", "post_attention_layernorm"):
        _let_through(getattr(layer, norm).weight, getattr(source, norm).weight)


def _heads(small: Any, wanted: Any) -> list[int]:
    """The rows of queries in the larger shape, one for each of the small one's: heads stay with their keys and values, which
    are the first."""
    few, many = (config.num_attention_heads // config.num_key_value_heads for config in (small, wanted))
    heads = [group * many + head for group in range(small.num_key_value_heads) for head in range(few)]
    return [head * small.head_dim + place for head in heads for place in range(small.head_dim)]


def _let_through(norm: Tensor, source: Tensor) -> None:
    """Makes a norm hand on the first copy of the hidden vector alone, so that no matrix behind it sees another."""
    norm.zero_()
    norm[: len(source)] = source


def _read(weight: Tensor, source: Tensor, rows: Sequence[int] | None = None) -> None:
    """Puts the small model's matrix [rows, hidden] into some rows of a larger one, all behind a norm."""
    weight[torch.tensor(range(len(source)) if rows is None else rows), : source.shape[1]] = source


def _write(weight: Tensor, source: Tensor, columns: Sequence[int]) -> None:
    """Puts the small model's matrix [hidden, columns] where it writes every copy of the hidden vector, and nothing else does."""
    weight.zero_()
    weight[:, torch.tensor(columns)] = source.repeat(len(weight) // len(source), 1)
