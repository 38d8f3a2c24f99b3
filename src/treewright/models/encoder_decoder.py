"""Encoder-decoder models of transformers (BART, T5, Marian and their kin): the decoder's own forward scores a tree of claims.

The prompt is the encoder's input. The decoder begins with its start token and sees the prompt through cross-attention, whose
keys and values are computed once for a prompt, with the model's own projections.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from transformers import EncoderDecoderCache, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from treewright.core.answers import Answers
from treewright.core.errors import ModelError
from treewright.core.exits import ExitHead
from treewright.core.layers import LayerPlan
from treewright.core.session import Capabilities, Opening, Recorder, Session
from treewright.core.text import Text
from treewright.models.attention import attending_to_trees
from treewright.models.blocks import Block
from treewright.models.causal import FULL
from treewright.models.clock import settled_time
from treewright.models.compiled import CompiledStep
from treewright.models.cross_memory import CrossMemory
from treewright.models.encoder_decoder_session import EncoderDecoderSession
from treewright.models.memory import KeysValues, Layout, Probe
from treewright.models.packing import Packing
from treewright.models.placing import Places


class EncoderDecoderModel:
    """A transformers encoder-decoder behind the protocol.

    Raises ModelError for a model without a start token or an output layer, with two vocabularies, or whose decoder cannot be
    told of positions.
    """

    def __init__(self, model: PreTrainedModel, pack: bool = True) -> None:
        self.model = model.eval()
        self._packing = Packing(model, pack)
        self._decoder: Any = model.get_decoder()
        self._encoder: Any = model.get_encoder()
        self.config = model.config.get_text_config()
        self.device, self.dtype = model.device, model.dtype
        self.head: ExitHead | None = None
        self.windows: dict[str, int | None] = {FULL: None}
        self.compiled: CompiledStep | None = None
        self._places = Places(self._decoder)
        start = decoder_start(model)
        self._layout, self._cross, self._projections, vocabulary = self._probe(start)
        most = getattr(self.config, "max_position_embeddings", None)
        self.capabilities = Capabilities(
            tree="native", hidden=True, hidden_size=int(self.config.hidden_size), vocabulary=vocabulary, max_length=most,
            max_prompt=most, decoder_start=start, slot_bytes=self._layout.slot_bytes,
        )  # fmt: skip

    @torch.inference_mode()
    def _probe(self, start: Sequence[int]) -> tuple[Layout, Layout, dict[int, tuple[Any, Any]], int]:
        """One forward of the decoder over one token, which shows what each layer writes, which projections make the keys and
        values of the prompt, and how many tokens there are."""
        own, cross = Probe(), Probe()
        states = self._encoder(input_ids=torch.tensor([start], device=self.device)).last_hidden_state
        asked: list[torch.nn.Module] = []

        def note(module: torch.nn.Module, args: tuple[Any, ...], output: torch.Tensor) -> None:
            if args[0] is states:
                asked.append(module)

        linear = [module for module in self._decoder.modules() if isinstance(module, torch.nn.Linear)]
        hooks = [module.register_forward_hook(note) for module in linear]
        try:
            output = self.model(
                decoder_input_ids=torch.tensor([start], device=self.device), encoder_outputs=BaseModelOutput(states),
                past_key_values=EncoderDecoderCache(own, cross), use_cache=True,
            )  # fmt: skip
        finally:
            for hook in hooks:
                hook.remove()
        name, vocabulary = type(self.model).__name__, getattr(output, "logits", states[..., :0]).shape[-1]
        if not vocabulary:
            raise ModelError(f"{name} gives no logits; load the model with its language modelling head")
        if vocabulary != self.model.get_input_embeddings().num_embeddings:  # type: ignore[union-attr]
            raise ModelError(f"{name} reads one vocabulary and writes another of {vocabulary} tokens; give one with the same")
        layers = sorted({layer for layer, _ in cross.seen})
        projections = dict(zip(layers, zip(asked[::2], asked[1::2], strict=False), strict=False))
        cross_layout = cross.layout()
        for (layer, kind), seen in cross.seen.items():
            made = self._project(projections, cross_layout, states).get(layer)
            if made is None or not torch.equal(made[kind == "value"], seen):
                raise ModelError(f"{name} makes the keys of its cross-attention in a way that treewright does not know")
        return own.layout(), cross_layout, projections, vocabulary

    @staticmethod
    def _project(projections: Mapping[int, tuple[Any, Any]], layout: Layout, states: torch.Tensor) -> dict[int, KeysValues]:
        """Keys and values [R, heads, T, D] of every layer for encoder states [R, T, H]."""
        shapes = dict(layout.planes)

        def split(layer: int, kind: str, made: torch.Tensor) -> torch.Tensor:
            return made.unflatten(-1, shapes[layer, kind]).transpose(1, 2)

        return {
            layer: (split(layer, "key", keys(states)), split(layer, "value", values(states)))
            for layer, (keys, values) in projections.items()
        }

    @torch.inference_mode()
    def encode(self, prompts: Sequence[Sequence[int]]) -> dict[int, KeysValues]:
        """Keys and values [R, heads, T, D] of each layer's cross-attention, right-padded: one forward of the encoder."""
        longest = max(len(prompt) for prompt in prompts)
        ids, mask = np.zeros((2, len(prompts), longest), np.int64)
        for row, prompt in enumerate(prompts):
            ids[row, : len(prompt)], mask[row, : len(prompt)] = prompt, 1
        with self._packing.running():
            states = self._encoder(
                input_ids=torch.from_numpy(ids).to(self.device), attention_mask=torch.from_numpy(mask).to(self.device)
            ).last_hidden_state
            return self._project(self._projections, self._cross, states)

    @torch.inference_mode()
    def forward(
        self, block: Block, cache: Any, keep: int = 0, hidden: bool = False, layers: bool = False,
        plans: Sequence[LayerPlan] = (),
    ) -> Answers:  # fmt: skip
        """As `CausalModel.forward`, through the decoder; `cache` is a `CrossWindow`. All columns' logits are computed, since
        these models have no way to keep some, and no exit layers are read."""
        # The decoder attends to a prompt only where it is handed states; what it sees of them is in the cache.
        states = torch.zeros(1, 1, 1, dtype=self.dtype, device=self.device)
        with attending_to_trees(self._decoder), self._places.at(block.positions, block.keys), self._packing.running():
            output = self.model(
                decoder_input_ids=torch.from_numpy(block.ids).to(self.device), decoder_attention_mask=block.masks,
                encoder_outputs=BaseModelOutput(states), attention_mask=cache.mask,  # type: ignore[arg-type]
                past_key_values=cache, use_cache=True, output_hidden_states=hidden,
            )  # fmt: skip
        logits = output.logits[:, -keep:] if keep else output.logits
        return Answers(logits, output.decoder_hidden_states[-1] if hidden else None)

    def open(self, text: Text, opening: Opening, record: Recorder) -> Session:
        self._packing.refresh()
        return EncoderDecoderSession(self, text, opening, record)

    def new_memory(self, rows: int, scratch: int, slots: int) -> CrossMemory:
        return CrossMemory(self._layout, self._cross, rows, scratch, slots)

    def timed(self) -> float:
        """`settled_time` of the model's device."""
        return settled_time(self.device)


def decoder_start(model: PreTrainedModel) -> tuple[int, ...]:
    """What the decoder's text begins with: `decoder_start_token_id` of the generation configuration, or of the model's, else
    the token of the beginning. Raises ModelError where there is none."""
    generation = getattr(model, "generation_config", None)
    candidates = (
        getattr(generation, "decoder_start_token_id", None), getattr(model.config, "decoder_start_token_id", None),
        getattr(generation, "bos_token_id", None),
    )  # fmt: skip
    known = next((token for token in candidates if token is not None), None)
    if known is None:
        raise ModelError(
            f"{type(model).__name__} has no start token for its decoder; set generation_config.decoder_start_token_id"
        )
    return tuple(known) if isinstance(known, list) else (int(known),)
