"""Distillation: a small draft learns the token distributions of its target."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional
from transformers import LlamaForCausalLM

from .language_model import logits_of


@dataclass(frozen=True)
class Distillation:
    """An objective: `soft_share` x KL(teacher || student) + the rest x cross-entropy.

    The acceptance rate of speculative sampling is one minus the total variation distance of the
    two distributions, which the KL term bounds; the cross-entropy keeps the draft on the data
    where the teacher is unsure.  Temperature is 1: the draft is used at the target's temperature.
    """

    teacher: LlamaForCausalLM
    soft_share: float = 0.9

    def __call__(self, model: LlamaForCausalLM, rows: Tensor) -> Tensor:
        """Mean loss in nats per token of rows [sequences, length + 1]."""
        with torch.no_grad():
            target = logits_of(self.teacher, rows).flatten(0, 1).float().log_softmax(-1)
        own = logits_of(model, rows).flatten(0, 1).float().log_softmax(-1)
        soft = functional.kl_div(own, target, reduction="batchmean", log_target=True)
        hard = functional.nll_loss(own, rows[:, 1:].flatten())
        return self.soft_share * soft + (1 - self.soft_share) * hard
