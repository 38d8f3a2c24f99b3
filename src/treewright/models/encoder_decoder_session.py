"""The session of an encoder-decoder: prompts are encoded once, the decoder's text is scored as a causal model's is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np

from treewright.core.session import Opening, Recorder
from treewright.core.text import Text
from treewright.models.blocks import TreeScorer
from treewright.models.causal_session import CausalSession
from treewright.models.memory import KeysValues


class CrossScorer(TreeScorer, Protocol):
    """A tree scorer that encodes prompts: keys and values of its cross-attention by layer, padded behind to the longest."""

    def encode(self, prompts: Sequence[Sequence[int]]) -> Mapping[int, KeysValues]: ...


class EncoderDecoderSession(CausalSession):
    """A `CausalSession` whose own prompt is the decoder's start, with the engine's prompt in the cross-attention.

    Nothing is predicted at a prompt's positions, so `prompt_top` stays None.
    """

    def __init__(self, model: CrossScorer, text: Text, opening: Opening, record: Recorder) -> None:
        super().__init__(model, text, replace(opening, prompt_top=0), record)
        self._encoder = model
        self._start = list(model.capabilities.own_text(()))
        self._entering: tuple[Mapping[int, KeysValues], list[int]]

    def admit(self, text: Text, prompts: Sequence[Sequence[int]]) -> None:
        """Encodes the prompts in one call of the kind "encode"."""
        lengths = [len(prompt) for prompt in prompts]
        begin = self._model.timed()
        self._entering = self._encoder.encode(prompts), lengths
        self._record("encode", len(prompts), max(lengths), self._model.timed() - begin)
        super().admit(text, [self._start] * len(prompts))

    def _read_prompts(self, rows: range, block: np.ndarray, lengths: np.ndarray) -> None:
        memory: Any = self._memory
        memory.put(rows, *self._entering)
        super()._read_prompts(rows, block, lengths)
