"""Masked diffusion language models: a bidirectional forward predicts every open slot of a canvas at once.

LLaDA (Nie et al. 2025, https://arxiv.org/abs/2502.09992) predicts a slot at the slot itself. Dream (Ye et al. 2025,
https://arxiv.org/abs/2508.15487) grew out of a causal model and predicts it one place to the left. Any transformers model
that predicts at masked positions will do, also one with code of its own that is in memory already.
"""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import torch
from transformers import Cache

from treewright.core.errors import CapabilityError, ModelError
from treewright.core.session import Capabilities, Opening, Recorder, Session
from treewright.core.text import Text
from treewright.models.clock import settled_time
from treewright.models.masked_session import MaskedSession
from treewright.models.memory import Probe
from treewright.models.packing import Packing

SHIFTED = ("dream",)
"""Model types of transformers configurations whose position i predicts the token of slot i + 1."""


class MaskedModel:
    """A bidirectional network behind the protocol.

    network: called with input_ids [B, T] and, where rows are padded, attention_mask [B, T]; gives logits [B, T, V] or an
    object that has them. mask: the id of an open slot. shift: position i predicts slot i + 1, as in Dream. known: ids from
    here on are not the tokenizer's and are never emitted; None for all. Raises ModelError for a mask that is no id.
    """

    def __init__(self, network: Any, mask: int, shift: bool = False, known: int | None = None, pack: bool = True) -> None:
        self.network = network.eval()
        self._packing = Packing(network, pack)
        self.config = network.config
        parameter = next(network.parameters())
        self.device, self.dtype = parameter.device, parameter.dtype
        self.mask, self.shift = mask, shift
        self.vocabulary = int(self.config.vocab_size)
        if not 0 <= mask < self.vocabulary:
            raise ModelError(f"mask token {mask} is not one of the model's {self.vocabulary} ids; give its tokenizer's mask id")
        self.forbidden = sorted({mask, *range(self.vocabulary if known is None else known, self.vocabulary)})
        self._options = set(inspect.signature(network.forward).parameters)
        self._reuses: bool | None = None
        positions = (getattr(self.config, name, None) for name in ("max_position_embeddings", "max_sequence_length"))
        self.capabilities = Capabilities(
            order="any", vocabulary=self.vocabulary, mask=mask, max_length=next((p for p in positions if p), None)
        )

    def open(self, text: Text, opening: Opening, record: Recorder) -> Session:
        self._packing.refresh()
        if opening.reuse and not self._can_reuse():
            raise CapabilityError(
                f"a cache was asked for, but {type(self.network).__name__} takes no keys and values from outside; "
                "decode without a cache"
            )
        return MaskedSession(self, text, opening, record)

    def _can_reuse(self) -> bool:
        """Whether a forward writes its keys and values into the cache it is given, and takes positions."""
        if self._reuses is None:
            probe = Probe()
            try:
                self.forward(np.full((1, 1), self.mask), np.ones(1, np.int64), probe)
            except (TypeError, ValueError):
                self._reuses = False
            else:
                self._reuses = bool(probe.seen) and "position_ids" in self._options
        return self._reuses

    @torch.inference_mode()
    def forward(self, ids: np.ndarray, lengths: np.ndarray, cache: Cache | None = None) -> torch.Tensor:
        """Logits [B, T, V] of right-padded canvases ids [B, T] with `lengths` [B], each for the slot itself."""
        inputs: dict[str, Any] = {"input_ids": torch.from_numpy(ids).to(self.device)}
        if (lengths < ids.shape[1]).any():
            inputs["attention_mask"] = torch.from_numpy(np.arange(ids.shape[1]) < lengths[:, None]).long().to(self.device)
        if cache is not None:
            inputs["past_key_values"] = cache
        logits = self._logits(inputs)
        return torch.cat([logits[:, :1], logits[:, :-1]], dim=1) if self.shift else logits

    @torch.inference_mode()
    def forward_window(self, ids: np.ndarray, positions: np.ndarray, lengths: np.ndarray, cache: Cache) -> torch.Tensor:
        """Raw logits [B, W, V] of some slots: ids and positions [B, W], keys and values of all slots in `cache`."""
        slots = int(lengths.max())
        closed = torch.from_numpy(np.arange(slots) >= lengths[:, None]).to(self.device)
        mask = torch.zeros(len(ids), 1, ids.shape[1], slots, dtype=self.dtype, device=self.device)
        mask.masked_fill_(closed[:, None, None, :], torch.finfo(self.dtype).min)
        inputs = {
            "input_ids": torch.from_numpy(ids).to(self.device), "attention_mask": mask, "past_key_values": cache,
            "position_ids": torch.from_numpy(positions).to(self.device),
        }  # fmt: skip
        return self._logits(inputs)

    def _logits(self, inputs: dict[str, Any]) -> torch.Tensor:
        with self._packing.running():
            output = self.network(**inputs)
        return output if isinstance(output, torch.Tensor) else output.logits

    def timed(self) -> float:
        """`settled_time` of the model's device."""
        return settled_time(self.device)
