"""What transformers itself can do with the same model and prompts: the peers that our methods are compared with. Peers outside
transformers keep the same contract (`PeerSettings` to `PeerRun`) in files of their own.

Each peer is a function (model, prompts, settings) -> PeerRun. It is called with nothing but the settings: the model's own
generation config (temperature, penalties, end ids ...) is set aside for the call, and the end ids are those that
treewright uses. The first call of a process is slower than the rest; callers who time must warm up.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Protocol

import torch
from transformers import GenerationConfig

from treewright.api import Loaded
from treewright.core.errors import CapabilityError, InputError

LOOKUP_TOKENS = 10
"""Tokens that transformers' prompt lookup drafts, the value its documentation uses."""


@dataclass(frozen=True, slots=True)
class PeerSettings:
    """What every peer is asked for. draft: the smaller model of assisted decoding."""

    max_new_tokens: int = 128
    temperature: float = 0.0
    seed: int = 0
    ignore_eos: bool = False
    draft: Loaded | None = None


@dataclass(frozen=True, slots=True)
class PeerRun:
    """tokens: new tokens of each prompt. seconds: wall time of `generate`. model_calls: forwards of the target, the one
    that reads the prompt included, since it predicts the first token. width: columns of the widest of the others.
    draft_calls: forwards of a draft model. None where a peer does not tell; transformers' calls and width are always known."""

    tokens: list[list[int]]
    seconds: float
    model_calls: int | None
    width: int | None
    draft_calls: int | None = None


class Peer(Protocol):
    """Decodes prompts (token ids). Raises InputError for what it does not support."""

    def __call__(self, model: Loaded, prompts: Sequence[Sequence[int]], settings: PeerSettings) -> PeerRun: ...


def transformers_generate(model: Loaded, prompts: Sequence[Sequence[int]], settings: PeerSettings) -> PeerRun:
    """transformers' plain loop: greedy at temperature 0, else multinomial sampling. Takes any number of prompts."""
    return _generate(model, prompts, settings)


def transformers_prompt_lookup(model: Loaded, prompts: Sequence[Sequence[int]], settings: PeerSettings) -> PeerRun:
    """transformers' prompt lookup. Takes one prompt."""
    _one("transformers:prompt_lookup", prompts)
    return _generate(model, prompts, settings, lookup=LOOKUP_TOKENS)


def transformers_assisted(model: Loaded, prompts: Sequence[Sequence[int]], settings: PeerSettings) -> PeerRun:
    """transformers' assisted decoding with `settings.draft`. Takes one prompt."""
    _one("transformers:assisted", prompts)
    if settings.draft is None:
        raise InputError(
            "peer 'transformers:assisted' needs a model for the role 'draft'; give models={'draft': ...} (--with draft=MODEL)"
        )
    draft = network_of(settings.draft)
    with _bare(draft):
        return _generate(model, prompts, settings, assistant=draft)


PEERS: Mapping[str, Peer] = MappingProxyType({
    "transformers": transformers_generate,
    "transformers:prompt_lookup": transformers_prompt_lookup,
    "transformers:assisted": transformers_assisted,
})  # fmt: skip


def _one(name: str, prompts: Sequence[Sequence[int]]) -> None:
    if len(prompts) != 1:
        raise InputError(f"peer '{name}' was given {len(prompts)} prompts; transformers supports one; give them one by one")


def network_of(model: Loaded) -> Any:
    """The transformers model of a Loaded. Raises CapabilityError where it was loaded from an object with the protocol."""
    if model.model is model.protocol:
        raise CapabilityError(f"peers need transformers models, which '{model.name}' is not; give one, or no peer")
    return model.model


@contextmanager
def _bare(network: Any) -> Iterator[None]:
    """The model without a generation config of its own, whose values would fill in for those that are not given."""
    own = network.generation_config
    network.generation_config = GenerationConfig()
    try:
        yield
    finally:
        network.generation_config = own


def _config(model: Loaded, settings: PeerSettings, lookup: int | None) -> GenerationConfig:
    eos = [] if settings.ignore_eos else list(model.eos_ids)
    law: dict[str, Any] = {"do_sample": False}
    if settings.temperature > 0:
        law = {"do_sample": True, "temperature": settings.temperature, "top_k": 0, "top_p": 1.0}
    return GenerationConfig(
        max_new_tokens=settings.max_new_tokens, eos_token_id=eos or None, pad_token_id=eos[0] if eos else 0,
        prompt_lookup_num_tokens=lookup, **law,
    )  # fmt: skip


def _generate(
    model: Loaded, prompts: Sequence[Sequence[int]], settings: PeerSettings, lookup: int | None = None, assistant: Any = None
) -> PeerRun:
    network = network_of(model)
    config = _config(model, settings, lookup)
    width = max(len(prompt) for prompt in prompts)
    ids = torch.zeros(len(prompts), width, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, width - len(prompt) :] = torch.tensor(prompt)
        mask[row, width - len(prompt) :] = 1
    columns: list[int] = []

    def count(module: Any, arguments: Any, keywords: Mapping[str, Any], output: Any) -> None:
        columns.append(int(keywords["input_ids"].shape[1]))

    hook = network.register_forward_hook(count, with_kwargs=True)
    devices = [network.device] if network.device.type == "cuda" else []
    try:
        with _bare(network), torch.random.fork_rng(devices):
            torch.manual_seed(settings.seed)
            begin = time.perf_counter()
            sequences = network.generate(
                input_ids=ids.to(network.device), attention_mask=mask.to(network.device), generation_config=config,
                assistant_model=assistant,
            )  # fmt: skip
            rows = sequences[:, width:].tolist()
            seconds = time.perf_counter() - begin
    finally:
        hook.remove()
    ends = set() if settings.ignore_eos else set(model.eos_ids)
    return PeerRun([_until(row, ends) for row in rows], seconds, len(columns), max(columns[1:], default=1))


def _until(tokens: list[int], ends: set[int]) -> list[int]:
    """Tokens up to the first end id, with it; what follows is padding."""
    index = next((index for index, token in enumerate(tokens) if token in ends), len(tokens) - 1)
    return tokens[: index + 1]
