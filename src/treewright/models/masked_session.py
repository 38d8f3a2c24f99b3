"""The session of a masked model: each claim's canvas is a row of a forward, and what a whole forward wrote may be reused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from transformers import Cache

from treewright.core.answers import Answers
from treewright.core.claims import ABSENT, Forest
from treewright.core.field import Canvas, Field
from treewright.core.layers import LayerPlan
from treewright.core.session import Opening, Recorder
from treewright.core.text import Text
from treewright.models.canvas_session import Answered, CanvasSession

KeysValues = tuple[torch.Tensor, torch.Tensor]


class CanvasReader(Protocol):
    """What the session needs of its model; `MaskedModel` says what each is."""

    mask: int
    shift: bool
    forbidden: list[int]

    def forward(self, ids: np.ndarray, lengths: np.ndarray, cache: Cache | None = None) -> torch.Tensor: ...

    def forward_window(self, ids: np.ndarray, positions: np.ndarray, lengths: np.ndarray, cache: Any) -> torch.Tensor: ...

    def timed(self) -> float: ...


@dataclass(frozen=True, slots=True)
class Asked:
    """One canvas of a forward: whose it is, its tokens, and the slots [first, end) that are computed anew."""

    row: int
    column: int
    tokens: np.ndarray
    first: int
    end: int

    @property
    def whole(self) -> bool:
        return self.first == 0 and self.end == len(self.tokens)


class Recording(Cache):
    """Notes the keys and values of a whole forward, layer by layer."""

    def __init__(self) -> None:
        super().__init__(layers=[])
        self.layers_seen: dict[int, KeysValues] = {}

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *args: object, **kwargs: object
    ) -> KeysValues:
        self.layers_seen[layer_idx] = key_states, value_states
        return key_states, value_states

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return 0


class Reusing(Cache):
    """Puts the keys and values of a window, slots index [B, W], over those that are kept, [B, heads, T, dim]; the kept
    ones stay as they are."""

    def __init__(self, kept: dict[int, KeysValues], index: torch.Tensor) -> None:
        super().__init__(layers=[])
        self._kept, self._index = kept, index

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *args: object, **kwargs: object
    ) -> KeysValues:
        keys, values = self._kept[layer_idx]
        return self._over(keys, key_states), self._over(values, value_states)

    def _over(self, kept: torch.Tensor, fresh: torch.Tensor) -> torch.Tensor:
        index = self._index[:, None, :, None].expand(-1, kept.shape[1], -1, kept.shape[3])
        return kept.scatter(2, index, fresh)

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return 0


class MaskedSession(CanvasSession):
    """Canvases are right-padded to one length a forward. Only the slots after the prompt are kept of an answer."""

    def __init__(self, model: CanvasReader, text: Text, opening: Opening, record: Recorder) -> None:
        super().__init__(text, record)
        self._model, self._opening = model, opening
        self._kept: list[dict[int, KeysValues] | None] = []

    def admit(self, text: Text, prompts: Sequence[Sequence[int]]) -> None:
        super().admit(text, prompts)
        self._kept += [None] * len(prompts)

    def score(self, forest: Forest, plans: Sequence[LayerPlan] = ()) -> Answers:
        self._begin(forest)
        asked = [one for row in range(forest.rows) for one in self._extend(forest, row)]
        for group in ([one for one in asked if one.whole], [one for one in asked if not one.whole]):
            if group:
                self._read(group)
        field = Field(self._canvases(), self._model.forbidden)
        return Answers(torch.zeros(forest.rows, forest.columns, 0), field=field)

    def _extend(self, forest: Forest, row: int) -> list[Asked]:
        """The canvases of a row's columns that are not live yet, and room for their answers."""
        live, asked = self._live[row], list[Asked]()
        for column in range(len(live), forest.columns):
            live.append(None)
            if column and (forest.token[row, column] == ABSENT or not forest.asked[column]):
                continue
            tokens = forest.canvas(self._text.of(row), row, column)
            first, end = self._window(forest, row, len(tokens))
            live[column] = None if column else self._kept_answer(row, tokens, first, end)
            if live[column] is None:
                asked.append(Asked(row, column, tokens, first, end))
        return asked

    def _window(self, forest: Forest, row: int, length: int) -> tuple[int, int]:
        if forest.window is None or self._kept[row] is None:
            return 0, length
        first, end = (int(slot) for slot in forest.window[row])
        # Where a slot is predicted one place to the left, that place is part of the window.
        return max(0, first - self._model.shift), min(end, length)

    @torch.inference_mode()
    def _read(self, group: list[Asked]) -> None:
        """One forward over the canvases of the group, all of them whole or none."""
        begin = self._model.timed()
        logits = self._read_whole(group) if group[0].whole else self._read_windows(group)
        for canvas, answer in zip(group, logits, strict=True):
            self._live[canvas.row][canvas.column] = Answered(canvas.tokens, answer, canvas.first, canvas.end)
        self._record("score", len(group), max(one.end - one.first for one in group), self._model.timed() - begin)

    def _read_whole(self, group: list[Asked]) -> list[Canvas]:
        lengths = np.array([len(one.tokens) for one in group])
        ids = np.full((len(group), int(lengths.max())), self._model.mask, np.int64)
        for number, one in enumerate(group):
            ids[number, : len(one.tokens)] = one.tokens
        recording = Recording() if self._opening.reuse else None
        logits = self._model.forward(ids, lengths, recording)
        if recording is not None:
            for number, one in enumerate(group):
                if one.column == 0:
                    self._keep(one.row, number, len(one.tokens), recording)
        starts = [int(self._text.prompt[one.row]) for one in group]
        return [Canvas(start, logits[i, start : int(lengths[i])]) for i, start in enumerate(starts)]

    def _keep(self, row: int, number: int, length: int, recording: Recording) -> None:
        self._kept[row] = {
            layer: (keys[number, :, :length].clone(), values[number, :, :length].clone())
            for layer, (keys, values) in recording.layers_seen.items()
        }

    def _read_windows(self, group: list[Asked]) -> list[Canvas]:
        """Short windows are padded with copies of their last slot, which write the same keys and values once more."""
        width = max(one.end - one.first for one in group)
        positions = np.array([np.minimum(np.arange(one.first, one.first + width), one.end - 1) for one in group])
        ids = np.array([one.tokens[slots] for one, slots in zip(group, positions, strict=True)])
        lengths = np.array([len(one.tokens) for one in group])
        kept = [self._kept[one.row] for one in group]
        stacked = {
            layer: (_stack([k[layer][0] for k in kept if k]), _stack([k[layer][1] for k in kept if k])) for layer in kept[0] or ()
        }
        device = next(iter(stacked.values()))[0].device
        cache = Reusing(stacked, torch.from_numpy(positions).to(device))
        logits = self._model.forward_window(ids, positions, lengths, cache)
        shift = int(self._model.shift)
        return [Canvas(one.first + shift, logits[i, : one.end - one.first - shift]) for i, one in enumerate(group)]

    def commit(self, paths: Sequence[Sequence[int]]) -> None:
        super().commit(paths)
        if self._opening.reuse:
            # A claim's forward leaves no keys and values behind, and the row's own must be those of its last whole one.
            self._known = [None if path else known for path, known in zip(paths, self._known, strict=True)]

    def select(self, rows: Sequence[int]) -> None:
        super().select(rows)
        self._kept = [self._kept[row] for row in rows]

    def cache_bytes(self) -> int:
        """Bytes of keys and values; rows that were forked share theirs until the next whole forward."""
        tensors = {id(t): t for kept in self._kept if kept for pair in kept.values() for t in pair}
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


def _stack(rows: list[torch.Tensor]) -> torch.Tensor:
    """Rows [heads, T, dim] of any T, zero-padded, [B, heads, longest, dim]."""
    longest = max(row.shape[1] for row in rows)
    return torch.stack([torch.nn.functional.pad(row, (0, 0, 0, longest - row.shape[1])) for row in rows])
