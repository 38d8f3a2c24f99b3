"""Training a module beside a frozen target: the target reads token rows once, the module learns from what it says of them.

A plug-in is two small things: an `nn.Module`, and a loss of the module and what the target said. The loop, the schedule and
the checkpoints are those of every other run (`language_model.Trainer`); nothing here knows what the module is for. Any
transformers causal model can be the target.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from .checkpoint import Progress
from .self_text import WithSelfText

Trained = TypeVar("Trained", bound=nn.Module, contravariant=True)


@dataclass(frozen=True)
class Seen:
    """Token rows as the target sees them: tokens [B, T] int64, hidden [B, T, H] the last hidden states in the target's own
    dtype (what its vocabulary projection reads), logits [B, T, V]. Position t has read tokens 0 .. t."""

    tokens: Tensor
    hidden: Tensor
    logits: Tensor

    def chosen(self) -> Tensor:
        """The target's most probable next token at every position, [B, T]."""
        return self.logits.argmax(-1)


class FrozenTarget:
    """A causal model that is only read from. Its weights get no gradient and are not changed."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model.eval().requires_grad_(False)

    @property
    def projection(self) -> Tensor:
        """The vocabulary projection [V, H] in float32, which heads may start from."""
        return self.model.get_output_embeddings().weight.detach().float()

    def read(self, rows: Tensor) -> Seen:
        """One forward over rows [B, T]. Inference tensors cannot be saved for a backward pass, so they are cloned."""
        with torch.inference_mode():
            output = self.model(input_ids=rows.to(self.model.device), use_cache=False, output_hidden_states=True)
        return Seen(rows.to(self.model.device), output.hidden_states[-1].clone(), output.logits.clone())


@dataclass(frozen=True)
class Finished:
    """What an export may tell of its training. draft: the draft model's name, where the module is for a pair."""

    target: str
    progress: Progress
    blocks: WithSelfText
    mixture: dict[str, float]
    draft: str = ""


class Loss(Protocol[Trained]):
    """The mean loss of a module over what was read (`Seen`, or `SeenByPair` beside a pair), with gradient to the module alone."""

    def __call__(self, module: Trained, seen: Any) -> Tensor: ...


@contextmanager
def half_precision(device: torch.device) -> Iterator[None]:
    """Matrix products in bfloat16, sums and weights in float32, which is what heads are trained in."""
    with torch.autocast(device.type, torch.bfloat16):
        yield


@dataclass(frozen=True)
class PlugInObjective(Generic[Trained]):
    """A loss of a module beside a frozen target, in the form that the training loop asks for."""

    target: FrozenTarget
    loss: Loss[Trained]

    def __call__(self, model: Trained, rows: Tensor) -> Tensor:
        """Mean loss of rows [sequences, length + 1]."""
        seen = self.target.read(rows)
        with half_precision(rows.device):
            return self.loss(model, seen)
