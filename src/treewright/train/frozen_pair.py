"""A frozen target and its frozen draft model, for what is learned from both."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from .plug_in import FrozenTarget, Seen

TEXT_SHARE = 0.15
"""Of the tokens that the draft model reads, the share that is the text's own."""


@dataclass(frozen=True)
class SeenByPair(Seen):
    """Token rows, and rows mixed of them and of drafts, as both models see them.

    mixed [B, T]: at each place but the first the text's token or, more often, a draft drawn from the draft model's law after the
    text. drafted [B, T - 1]: at which places, from the second on, the draft stands. acceptance [B, T - 1]: the exact probability
    min(1, p / q) that speculative sampling accepts the draft of each place after the text. states [B, T - 1, H]: the draft
    model's last hidden states over the mixed row, each once it has read its place's token.
    """

    mixed: Tensor
    drafted: Tensor
    acceptance: Tensor
    states: Tensor


class FrozenPair(FrozenTarget):
    """A target and a draft model of one vocabulary, both only read from."""

    def __init__(self, model: PreTrainedModel, draft: PreTrainedModel) -> None:
        super().__init__(model)
        self.draft = draft.eval().requires_grad_(False)

    def read(self, rows: Tensor) -> SeenByPair:
        """One forward of the target and two of the draft over rows [B, T]. Drafts are a function of the rows alone, so that a
        resumed run draws the same."""
        seen = super().read(rows)
        text = seen.tokens
        generator = torch.Generator().manual_seed(zlib.crc32(rows.cpu().numpy().tobytes()))
        with torch.inference_mode():
            guessed = self.draft(input_ids=text, use_cache=False).logits[:, :-1].float().softmax(-1).cpu()
            draws = torch.multinomial(guessed.flatten(0, 1), 1, generator=generator).view(guessed.shape[:2])
            drafted = torch.rand(draws.shape, generator=generator) >= TEXT_SHARE
            judged = seen.logits[:, :-1].float().softmax(-1).cpu()
            ratio = judged.gather(-1, draws[..., None]) / guessed.gather(-1, draws[..., None])
            mixed = torch.cat([text[:, :1], torch.where(drafted.to(text.device), draws.to(text.device), text[:, 1:])], dim=1)
            states = self.draft(input_ids=mixed, use_cache=False, output_hidden_states=True).hidden_states[-1][:, 1:]
        acceptance = ratio[..., 0].clamp(max=1).to(text.device)
        # Inference tensors cannot be saved for a backward pass.
        return SeenByPair(
            seen.tokens, seen.hidden, seen.logits, mixed, drafted.to(text.device).clone(), acceptance.clone(), states.clone()
        )
