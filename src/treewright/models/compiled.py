"""The verify step as one compiled graph with static shapes."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from treewright.models.masks import Masks
from treewright.models.memory import Memory, Window

COLUMNS = (1, 2, 4, 8, 16, 24, 32, 48, 64, 80, 96)
KEY_STEP = 512


def bucket(columns: int) -> int:
    """The number of columns that a compiled block of `columns` is padded to."""
    return next((size for size in COLUMNS if size >= columns), -(-columns // 32) * 32)


class CompiledStep:
    """Compiles the model's own forward for each (rows, columns, keys) it meets; commit stays outside the graph.

    Costs seconds for each new shape; on a CPU it needs a C++ compiler. Weights are frozen into the graph, so the model
    must not be trained afterwards.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model
        self._steps: dict[tuple[Any, ...], Any] = {}

    def __call__(
        self, ids: np.ndarray, positions: np.ndarray, masks: Masks, memory: Memory, span: int
    ) -> torch.Tensor:
        """Logits [R, B, V] of a block that is written at slot 0 and attends to the first `span` slots."""
        keys, values, layers = memory.planes()
        rows, columns = ids.shape
        key = (rows, columns, span, memory.rows, memory.slots, isinstance(masks, dict))
        if key not in self._steps:
            self._steps[key] = self._compile(layers, span)
        device = self._model.device
        # One code object is compiled for every shape there is, so dynamo's limit of 8 recompilations does not apply.
        with torch.no_grad(), torch._dynamo.config.patch(recompile_limit=1024):
            return self._steps[key](
                torch.from_numpy(ids).to(device), torch.from_numpy(positions).to(device), masks, keys, values
            )

    def _compile(self, layers: list[int], span: int) -> Any:
        model = self._model

        def step(
            ids: torch.Tensor, positions: torch.Tensor, masks: Masks, keys: list[torch.Tensor], values: list[torch.Tensor]
        ) -> torch.Tensor:
            rows, columns = ids.shape
            write, read = {}, {}
            for layer, key, value in zip(layers, keys, values):  # noqa: B905 (strict breaks the graph)
                write[layer] = (key[:rows, :, :columns], value[:rows, :, :columns])
                read[layer] = (key[:rows, :, :span], value[:rows, :, :span])
            window = Window(write, read)
            output = model(
                input_ids=ids, position_ids=positions, attention_mask=masks, past_key_values=window, use_cache=True
            )
            return output.logits

        options: dict[str, Any] = {"freezing": True}
        if model.device.type == "cuda":
            options["triton.cudagraphs"] = True
        return torch.compile(step, fullgraph=True, dynamic=False, options=options)
