"""Causal language models of transformers: one forward of the model's own scores a tree of claims for every row."""

from __future__ import annotations

import inspect
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from treewright.core.session import Capabilities, Opening, Recorder, Session
from treewright.core.text import Text
from treewright.models.attention import attending_to_trees
from treewright.models.causal_session import CausalSession
from treewright.models.compiled import CompiledStep
from treewright.models.masks import Masks
from treewright.models.memory import Layout, Memory, Probe
from treewright.models.recompute import RecomputeSession

FULL = "full_attention"
SLIDING = "sliding_attention"


class CausalModel:
    """A transformers causal model behind the protocol.

    windows: layer type -> sliding window or None. layout: what the memory must hold; None where the model cannot score a
    tree in one forward, which then uses `RecomputeSession`. compiled: the static verify step, None for eager.
    """

    def __init__(self, model: PreTrainedModel, compile: bool = False) -> None:
        self.model = model.eval()
        self.config = model.config.get_text_config()
        self.device, self.dtype = model.device, model.dtype
        if self.dtype == torch.float64 and model._can_set_experts_implementation():
            # The default kernel for mixtures of experts takes no float64; the loop over experts does.
            model.set_experts_implementation("eager")
        self._options = set(inspect.signature(model.forward).parameters)
        self.windows: dict[str, int | None] = {}
        self.layout: Layout | None = self._probe() if self._may_hold_trees() else None
        self.compiled = CompiledStep(model) if compile and self.layout is not None else None
        self.capabilities = Capabilities(
            tree="native" if self.layout is not None else "unrolled",
            hidden=True,
            vocabulary=int(self.config.vocab_size),
            hidden_size=int(self.config.hidden_size),
            max_length=getattr(self.config, "max_position_embeddings", None),
        )

    def _may_hold_trees(self) -> bool:
        """Trees need explicit positions and memory by slots; ALiBi models take no positions, recurrent ones no slots."""
        types = set(getattr(self.config, "layer_types", None) or [FULL])
        stateful = bool(getattr(self.model, "_is_stateful", False))
        biased = bool(getattr(self.config, "alibi", False))
        return "position_ids" in self._options and not stateful and not biased and types <= {FULL, SLIDING}

    @torch.no_grad()
    def _probe(self) -> Layout:
        """One forward of one token, which shows what the model writes and whether it takes a mask for each layer type."""
        window = getattr(self.config, "sliding_window", None)
        types = set(getattr(self.config, "layer_types", None) or [])
        mixed: dict[str, int | None] = {name: window if name == SLIDING else None for name in (FULL, SLIDING)}
        attempts: list[dict[str, int | None]] = [mixed] if types else []
        attempts.append({FULL: window})
        for attempt in attempts:
            probe = Probe()
            mask = torch.zeros(1, 1, 1, 1, dtype=self.dtype, device=self.device)
            masks: Masks = mask if len(attempt) == 1 else dict.fromkeys(attempt, mask)
            one = np.zeros((1, 1), np.int64)
            try:
                self.forward(one, one, masks, probe)
            except (AttributeError, TypeError, KeyError):
                if attempt is attempts[-1]:
                    raise
                continue
            self.windows = attempt
            return probe.layout()
        raise AssertionError("unreachable: the last attempt returns or raises")

    @torch.inference_mode()
    def forward(
        self, ids: np.ndarray, positions: np.ndarray, masks: Masks, cache: Any, keep: int = 0, hidden: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Logits [R, B, V] (or of the last `keep` columns) and last hidden states [R, B, H] if asked for.

        In inference mode: a small model's forward is launch overhead, of which autograd's bookkeeping is a fifth.
        """
        extra: dict[str, Any] = {"logits_to_keep": keep} if keep and "logits_to_keep" in self._options else {}
        if hidden:
            extra["output_hidden_states"] = True
        with attending_to_trees(self.model):
            output = self.model(
                input_ids=torch.from_numpy(ids).to(self.device), position_ids=torch.from_numpy(positions).to(self.device),
                attention_mask=masks, past_key_values=cache, use_cache=True, **extra,
            )  # fmt: skip
        return output.logits, output.hidden_states[-1] if hidden else None

    def open(self, text: Text, opening: Opening, record: Recorder) -> Session:
        if self.layout is None:
            return RecomputeSession(text, opening, record, self._reader(opening.hidden))
        return CausalSession(self, text, opening, record)

    def _reader(self, hidden: bool) -> Any:
        @torch.no_grad()
        def read(sequences: Sequence[np.ndarray]) -> list[tuple[torch.Tensor, torch.Tensor | None]]:
            longest = max(len(sequence) for sequence in sequences)
            ids = np.zeros((len(sequences), longest), np.int64)
            for row, sequence in enumerate(sequences):
                ids[row, : len(sequence)] = sequence
            output = self.model(input_ids=torch.from_numpy(ids).to(self.device), use_cache=False, output_hidden_states=hidden)
            states = output.hidden_states[-1] if hidden else None
            return [
                (output.logits[row, : len(s)].cpu(), None if states is None else states[row, : len(s)].cpu())
                for row, s in enumerate(sequences)
            ]  # fmt: skip

        return read

    def new_memory(self, rows: int, scratch: int, slots: int) -> Memory:
        assert self.layout is not None
        return Memory(self.layout, rows, scratch, slots)

    def timed(self) -> float:
        """A clock that waits for the device, so that seconds in the model are the model's."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()
