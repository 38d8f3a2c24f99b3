"""The verify step as one compiled graph with static shapes.

What makes it fast on a CPU, each measured (docs/log.md): weights frozen into the graph and prepacked, projections of one
input concatenated, a C++ wrapper instead of a Python one, and no guards: every shape has a code object of its own, so there
is one graph to choose from.
"""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from treewright.core.errors import ModelError
from treewright.models.attention import attending_to_trees
from treewright.models.marks import Mark, mark
from treewright.models.masks import Masks
from treewright.models.memory import Memory, Window
from treewright.models.sizes import power_of_two, rounded

COLUMNS = (1, 2, 4, 8, 16, 24, 32, 48, 64, 80, 96)
LEAST_KEYS = 256
LEAST_SLOTS = 512

CPU_OPTIONS: dict[str, Any] = {
    "freezing": True,
    "cpp_wrapper": True,
    "cpp.enable_concat_linear": True,
}
CUDA_OPTIONS: dict[str, Any] = {"freezing": True, "triton.cudagraphs": True}

Step = Callable[..., torch.Tensor]


def bucket(columns: int) -> int:
    """The number of columns that a compiled block of `columns` is padded to."""
    return next((size for size in COLUMNS if size >= columns), rounded(columns, 32))


def key_bucket(keys: int) -> int:
    """The number of text slots that a compiled block attends to, a power of two: attention costs what it looks at."""
    return max(LEAST_KEYS, power_of_two(keys))


class CompiledStep:
    """Compiles the model's own forward for each (rows, columns, keys) it meets; commit stays outside the graph.

    A new shape costs about 10 seconds for a small model, more for a large one; on a CPU it needs a C++ compiler. Weights are
    frozen into the graphs, which are made anew where `refresh` finds that one has changed. Raises ModelError where the model's
    forward cannot be compiled as one graph.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model
        self._options = CUDA_OPTIONS if model.device.type == "cuda" else CPU_OPTIONS
        self._steps: dict[tuple[int, ...], Step] = {}
        self._marks: list[Mark] = []

    def refresh(self) -> None:
        """Forgets the graphs where a weight has changed since they were compiled, for weights are frozen into them. Called before
        a decode. Cost: reading the weights once."""
        marks = [mark(weight) for weight in self._model.parameters() if weight.dtype.is_floating_point]
        if marks != self._marks:
            self._steps, self._marks = {}, marks

    @torch.no_grad()
    def __call__(self, ids: np.ndarray, positions: np.ndarray, masks: Masks, memory: Memory, span: int) -> torch.Tensor:
        """Logits [R, B, V] of a block that is written at slot 0 and attends to the first `span` slots."""
        keys, values, layers = memory.planes()
        device = self._model.device
        inputs = torch.from_numpy(ids).to(device), torch.from_numpy(positions).to(device), masks, keys, values
        key = (*ids.shape, span, memory.rows, memory.slots)
        known = self._steps.get(key)
        if known is None:
            return self._first(key, layers, inputs)
        with torch.compiler.set_stance(skip_guard_eval_unsafe=True):
            return known(*inputs)

    def _first(self, key: tuple[int, ...], layers: list[int], inputs: tuple[Any, ...]) -> torch.Tensor:
        step = torch.compile(self._own_code(key, layers), fullgraph=True, dynamic=False)
        try:
            with torch._inductor.config.patch(self._options), attending_to_trees(self._model):
                logits = step(*inputs)
        except (RuntimeError, OSError) as error:
            reason = str(error).strip().splitlines()[0]
            raise ModelError(
                f"model {type(self._model).__name__} cannot be compiled for {key[0]} rows of {key[1]} columns ({reason}); "
                "load it without compile, and on a CPU check that a C++ compiler is installed"
            ) from error
        self._steps[key] = step
        return logits

    def _own_code(self, key: tuple[int, ...], layers: list[int]) -> Step:
        """The step as a function with a code object of its own: dynamo keeps graphs by code object."""
        model, span = self._model, key[2]

        def step(
            ids: torch.Tensor, positions: torch.Tensor, masks: Masks, keys: list[torch.Tensor], values: list[torch.Tensor]
        ) -> torch.Tensor:
            rows, columns = ids.shape
            write, read = {}, {}
            for layer, key, value in zip(layers, keys, values):  # noqa: B905 (strict= is not traced)
                write[layer] = (key[:rows, :, :columns], value[:rows, :, :columns])
                read[layer] = (key[:rows, :, :span], value[:rows, :, :span])
            window = Window(write, read)
            output = model(input_ids=ids, position_ids=positions, attention_mask=masks, past_key_values=window, use_cache=True)
            return output.logits

        name = "step_" + "_".join(map(str, key))
        code = step.__code__.replace(co_name=name)
        return types.FunctionType(code, step.__globals__, name, step.__defaults__, step.__closure__)
