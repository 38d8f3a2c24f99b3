"""Causal language models of transformers: one forward of the model's own scores a tree of claims for every row."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from treewright.core.answers import Answers
from treewright.core.errors import CapabilityError
from treewright.core.exits import ExitHead, Exits
from treewright.core.layers import LayerPlan
from treewright.core.session import Capabilities, Opening, Recorder, Session
from treewright.core.text import Text
from treewright.models.attention import attending_to_trees
from treewright.models.blocks import Block
from treewright.models.causal_session import CausalSession
from treewright.models.clock import settled_time
from treewright.models.compiled import CompiledStep
from treewright.models.exit_layers import find_head
from treewright.models.layer_plans import find_layers
from treewright.models.masks import Masks
from treewright.models.memory import Layout, Memory, Probe
from treewright.models.packing import Packing
from treewright.models.recompute import Reader, Reading, RecomputeSession
from treewright.models.recurrent import continues, state_layout
from treewright.models.recurrent_session import RecurrentSession
from treewright.models.scans import continuing
from treewright.models.states import Copies, StateLayout
from treewright.models.tree_scan_session import TreeScanSession, tree_mixers

FULL = "full_attention"
SLIDING = "sliding_attention"


class CausalModel:
    """A transformers causal model behind the protocol.

    windows: layer type -> sliding window or None. layout: what the memory must hold; None where the model cannot score a
    tree in one forward. states: what a recurrent or hybrid model keeps for each row, where its forwards go on from that
    rightly; a model with neither uses `RecomputeSession`. mixers: a Mamba-2's, by layer, where its trees can be scanned in one
    forward. compiled: the static verify step, None for eager. head: the way from hidden states to logits, None where it cannot
    be found.
    """

    def __init__(self, model: PreTrainedModel, compile: bool = False, pack: bool = True) -> None:
        self.model = model.eval()
        self._packing = Packing(model, wanted=pack and not compile)
        self.config = model.config.get_text_config()
        self.device, self.dtype = model.device, model.dtype
        if self.dtype == torch.float64 and model._can_set_experts_implementation():
            # The default kernel for mixtures of experts takes no float64; the loop over experts does.
            model.set_experts_implementation("eager")
        self._options = set(inspect.signature(model.forward).parameters)
        self.windows: dict[str, int | None] = {}
        self.layout: Layout | None = self._probe() if self._may_hold_trees() else None
        self.states: StateLayout | None = None if self.layout is not None else self._find_states()
        self.mixers = None if self.states is None else tree_mixers(self, self.states)
        self.head: ExitHead | None = find_head(model)
        self.layers = find_layers(model) if self.states is None else None
        self.compiled = CompiledStep(model) if compile and self.layout is not None else None
        self.capabilities = Capabilities(
            tree="unrolled" if self.layout is None and self.mixers is None else "native",
            hidden=True,
            exit_layers=self.head is not None,
            layers=0 if self.layers is None else len(self.layers),
            embeddings=self._reads_embeddings(),
            vocabulary=int(self.config.vocab_size),
            hidden_size=int(self.config.hidden_size),
            max_length=getattr(self.config, "max_position_embeddings", None),
            slot_bytes=0 if self.layout is None else self.layout.slot_bytes,
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
                self.forward(Block(one, one, masks, one), probe)
            except (AttributeError, TypeError, KeyError):
                if attempt is attempts[-1]:
                    raise
                continue
            self.windows = attempt
            return probe.layout()
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _find_states(self) -> StateLayout | None:
        """The states of a recurrent or hybrid model, None where it keeps none or does not go on from them rightly."""
        layout = state_layout(self) if {"cache_params", "past_key_values"} & self._options else None
        return layout if layout is not None and continues(self, layout) else None

    @torch.inference_mode()
    def forward(
        self, block: Block, cache: Any, keep: int = 0, hidden: bool = False, layers: bool = False,
        plans: Sequence[LayerPlan] = (),
    ) -> Answers:  # fmt: skip
        """Logits [R, B, V] (or of the last `keep` columns), last hidden states [R, B, H] and exit layers if asked for.
        plans: what part of the layers runs, one for all rows or one for each; none for the whole model.

        In inference mode: a small model's forward is launch overhead, of which autograd's bookkeeping is a fifth.
        """
        positions = torch.from_numpy(block.positions).to(self.device)
        fed = self._embedded(block) if block.mix else block.ids
        inputs = {"position_ids": positions, "attention_mask": block.masks, "past_key_values": cache}
        if not plans or self.layers is None:
            return self._call(fed, keep, hidden, layers, inputs)
        with self.layers.running(plans):
            return self._call(fed, keep, hidden, layers, inputs)

    def _embedded(self, block: Block) -> torch.Tensor:
        """The embeddings [R, B, H] of a block, mixed where it says so."""
        embed = self.model.get_input_embeddings()
        fed = embed(torch.from_numpy(block.ids).to(self.device))
        for column, (tokens, weights) in block.mix.items():
            share = torch.from_numpy(weights).to(fed)
            fed[: len(tokens), column] = (embed(torch.from_numpy(tokens).to(self.device)) * share[..., None]).sum(1)
        return fed

    @torch.inference_mode()
    def _reads_embeddings(self) -> bool:
        """Whether embeddings in place of ids give the same answer; some models keep further embeddings by id."""
        if self.layout is None or "inputs_embeds" not in self._options:
            return False
        mask = torch.zeros(1, 1, 1, 1, dtype=self.dtype, device=self.device)
        masks: Masks = mask if len(self.windows) == 1 else dict.fromkeys(self.windows, mask)
        one = np.zeros((1, 1), np.int64)
        whole = np.zeros((1, 1), np.int64), np.ones((1, 1))
        try:
            told, mixed = (self.forward(Block(one, one, masks, one, mix), Probe()) for mix in ({}, {0: whole}))
        except (AttributeError, TypeError, ValueError):
            return False
        return torch.equal(told.logits, mixed.logits)

    @torch.inference_mode()
    def go_on(
        self, ids: np.ndarray, positions: np.ndarray, mask: torch.Tensor | None, cache: Copies,
        keep: int = 0, hidden: bool = False, layers: bool = False,
    ) -> Answers:  # fmt: skip
        """Like `forward`, from the states in `cache`, which are moved on. mask: for models that attend as well."""
        inputs: dict[str, Any] = {"cache_params" if "cache_params" in self._options else "past_key_values": cache}
        if "position_ids" in self._options:
            inputs["position_ids"] = torch.from_numpy(positions).to(self.device)
        if mask is not None:
            inputs["attention_mask"] = mask
        with continuing(self.model, lambda: cache.begun):
            return self._call(ids, keep, hidden, layers, inputs)

    def _call(self, fed: np.ndarray | torch.Tensor, keep: int, hidden: bool, layers: bool, inputs: dict[str, Any]) -> Answers:
        extra: dict[str, Any] = {"logits_to_keep": keep} if keep and "logits_to_keep" in self._options else {}
        if hidden or layers:
            extra["output_hidden_states"] = True
        if isinstance(fed, torch.Tensor):
            extra["inputs_embeds"] = fed
        else:
            extra["input_ids"] = torch.from_numpy(fed).to(self.device)
        with attending_to_trees(self.model), self._packing.running():
            output = self.model(use_cache=True, **inputs, **extra)
        exits = Exits(torch.stack(output.hidden_states[:-1], dim=2), self.head) if layers and self.head is not None else None
        return Answers(output.logits, output.hidden_states[-1] if hidden else None, exits=exits)

    def open(self, text: Text, opening: Opening, record: Recorder) -> Session:
        self._packing.refresh()
        if self.compiled is not None:
            self.compiled.refresh()
        if opening.layers and self.head is None:
            raise CapabilityError(
                f"exit layers were asked of a {type(self.model).__name__}, whose final norm and output matrix could not be "
                "found; use a model that has exit_layers"
            )
        if self.states is not None and self.mixers is not None:
            return TreeScanSession(self, self.states, self.mixers, text, opening, record)
        if self.states is not None:
            return RecurrentSession(self, self.states, text, opening, record)
        if self.layout is None:
            return RecomputeSession(text, opening, record, self._reader(opening), self.head)
        return CausalSession(self, text, opening, record)

    def _reader(self, opening: Opening) -> Reader:
        @torch.no_grad()
        def read(sequences: Sequence[np.ndarray], plans: Sequence[LayerPlan] = ()) -> list[Reading]:
            longest = max(len(sequence) for sequence in sequences)
            ids = np.zeros((len(sequences), longest), np.int64)
            for row, sequence in enumerate(sequences):
                ids[row, : len(sequence)] = sequence
            wanted = opening.hidden or opening.layers
            partly = nullcontext() if not plans or self.layers is None else self.layers.running(plans)
            with partly, self._packing.running():
                output = self.model(input_ids=torch.from_numpy(ids).to(self.device), use_cache=False, output_hidden_states=wanted)
            hidden = output.hidden_states[-1].cpu() if opening.hidden else None
            layers = torch.stack(output.hidden_states[:-1], dim=2).cpu() if opening.layers else None
            block = Reading(output.logits.cpu(), hidden, layers)
            return [block.at((row, slice(len(sequence)))) for row, sequence in enumerate(sequences)]

        return read

    def new_memory(self, rows: int, scratch: int, slots: int) -> Memory:
        assert self.layout is not None
        return Memory(self.layout, rows, scratch, slots)

    def timed(self) -> float:
        """`settled_time` of the model's device."""
        return settled_time(self.device)
