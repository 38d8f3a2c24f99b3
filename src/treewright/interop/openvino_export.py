"""`python -m treewright.interop.openvino_export MODEL FOLDER`: a model's weights as OpenVINO GenAI reads them.

A step of the model is traced with its keys and values as inputs and outputs, which then become the exported model's own state.
Weights are written in float32, so that nothing is rounded; the runtime chooses its arithmetic itself. For models whose every
layer attends to all columns through plain keys and values; `optimum-cli export openvino` knows more kinds and writes 16-bit
weights, but its transformers is older than ours, so it belongs into an environment of its own.
"""

from __future__ import annotations

import copy
import importlib
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from treewright.api import Loaded, load
from treewright.core.errors import CapabilityError, TreewrightError
from treewright.interop.peers import network_of

CLOSED = -65504.0
"""What is added to the scores of a column that must not be seen; the lowest number of float16, so that every dtype holds it."""
TOLERANCE = 1e-3
"""The largest difference of a logit between an export and its model, as a share of the largest logit."""


class Step(nn.Module):
    """A forward with keys and values passed in and out.

    (input_ids [B, N], attention_mask [B, M + N], position_ids [B, N], keys and values of each layer in turn [B, H, M, D]) ->
    (logits [B, N, V], keys and values of each layer in turn [B, H, M + N, D]).
    """

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, input_ids: Any, attention_mask: Any, position_ids: Any, *past: Any) -> tuple[Any, ...]:
        layers = []
        for keys, values in zip(past[::2], past[1::2], strict=True):
            layer: Any = DynamicLayer()
            layer.lazy_initialization(keys, values)
            layer.keys, layer.values = keys, values
            layers.append(layer)
        cache = DynamicCache()
        cache.layers.extend(layers)
        columns = torch.arange(attention_mask.shape[1])[None, None, None, :]
        rows = (torch.arange(input_ids.shape[1]) + past[0].shape[2])[None, None, :, None]
        seen = (columns <= rows) & (attention_mask[:, None, None, :] != 0)
        output = self.network(
            input_ids=input_ids, attention_mask=torch.where(seen, 0.0, CLOSED), position_ids=position_ids, past_key_values=cache,
            use_cache=True,
        )  # fmt: skip
        return output.logits, *(kept for layer in layers for kept in (layer.keys, layer.values))


def export(model: Loaded, folder: Path) -> None:
    """Writes model, configuration and, where there is one, tokenizer into `folder`, and compares the export's logits with the
    model's. Costs two copies of the weights in float32 and three forwards. Raises TreewrightError where OpenVINO is not
    installed, CapabilityError for a model that is not transformers', whose layers attend otherwise, or whose export differs."""
    try:
        openvino, tokenizers = map(importlib.import_module, ("openvino", "openvino_tokenizers"))
    except ModuleNotFoundError as error:
        raise TreewrightError("an export needs OpenVINO, which is not installed; run: pip install treewright[peers]") from error
    network = copy.deepcopy(network_of(model)).float().cpu().eval()
    layers = _layers(model, network)
    example = (
        torch.ones(2, 3, dtype=torch.long), torch.ones(2, 5, dtype=torch.long), torch.arange(2, 5).repeat(2, 1),
        *(torch.zeros(2, heads, 2, size) for heads, size in layers for _ in range(2)),
    )  # fmt: skip
    network.set_attn_implementation("sdpa")
    with torch.no_grad(), warnings.catch_warnings():
        # Tracing warns of every choice that transformers makes by shape; the comparison below is what they are good for.
        warnings.simplefilter("ignore")
        converted = openvino.convert_model(Step(network), example_input=example)
    _make_stateful(converted, layers)
    exact = {"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f32"}
    _compare(model, network, openvino.compile_model(converted, "CPU", exact))
    folder.mkdir(parents=True, exist_ok=True)
    network.config.save_pretrained(folder)
    if model.tokenizer is not None:
        for name, part in zip(
            ("tokenizer", "detokenizer"), tokenizers.convert_tokenizer(model.tokenizer, with_detokenizer=True), strict=True
        ):
            openvino.save_model(part, folder / f"openvino_{name}.xml")
    openvino.save_model(converted, folder / "openvino_model.xml", compress_to_fp16=False)


def _layers(model: Loaded, network: Any) -> list[tuple[int, int]]:
    """Heads of keys and their size, layer by layer. Raises CapabilityError for layers that keep anything else."""
    with torch.no_grad():
        cache = network(input_ids=torch.ones(1, 2, dtype=torch.long), use_cache=True).past_key_values
    kinds = {type(layer) for layer in getattr(cache, "layers", [])}
    if kinds != {DynamicLayer}:
        raise CapabilityError(
            f"model '{model.name}' keeps {', '.join(sorted(kind.__name__ for kind in kinds)) or 'no keys and values'}, and only "
            "layers that attend to all columns are exported here; use optimum-cli export openvino"
        )
    return [(layer.keys.shape[1], layer.keys.shape[3]) for layer in cache.layers]


def _make_stateful(converted: Any, layers: list[tuple[int, int]]) -> None:
    """Names inputs and outputs as the runtime knows them, lets `beam_idx` order the rows of keys and values, and makes these the
    model's state, empty at first."""
    openvino, ops = map(importlib.import_module, ("openvino", "openvino.opset13"))
    transformations = importlib.import_module("openvino._offline_transformations")
    kept = [f"{index}.{which}" for index in range(len(layers)) for which in ("key", "value")]
    names = ["input_ids", "attention_mask", "position_ids", *(f"past_key_values.{name}" for name in kept)]
    shapes = [[-1, -1]] * 3 + [[-1, heads, -1, size] for heads, size in layers for _ in range(2)]
    for value, name, shape in zip(converted.inputs, names, shapes, strict=True):
        value.get_tensor().set_names({name})
        value.get_node().set_friendly_name(name)
        value.get_node().set_partial_shape(openvino.PartialShape(shape))
    outputs = ["logits", *(f"present.{name}" for name in kept)]
    for value, name in zip(converted.outputs, outputs, strict=True):
        value.get_tensor().set_names({name})
    order = ops.parameter(openvino.PartialShape([-1]), openvino.Type.i32, name="beam_idx")
    order.output(0).get_tensor().set_names({"beam_idx"})
    for value in converted.inputs[3:]:
        readers = value.get_target_inputs()
        ordered = ops.gather(value.get_node(), order, ops.constant(0, dtype=np.int64))
        for reader in readers:
            reader.replace_source_output(ordered.output(0))
    converted.add_parameters([order])
    converted.validate_nodes_and_infer_types()
    transformations.apply_make_stateful_transformation(converted, dict(zip(names[3:], outputs[1:], strict=True)))
    rows = ops.gather(
        ops.shape_of(converted.input("input_ids").get_node(), output_type="i64"), ops.constant([0], dtype=np.int64),
        ops.constant(0, dtype=np.int64),
    )  # fmt: skip
    for state in (node for node in converted.get_ops() if node.get_type_name() == "ReadValue"):
        _, heads, _, size = state.get_output_partial_shape(0)
        empty = ops.concat([rows, ops.constant([heads.get_length(), 0, size.get_length()], dtype=np.int64)], 0)
        state.set_arguments([ops.broadcast(ops.constant(0.0, dtype=np.float32), empty)])
    converted.validate_nodes_and_infer_types()


def _compare(model: Loaded, network: Any, compiled: Any) -> None:
    """Reads a text in two steps, so that the second sees the state of the first. Raises CapabilityError where logits differ."""
    ids = torch.randint(network.config.vocab_size, (2, 12), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = network(input_ids=ids).logits.numpy()
    request, found = compiled.create_infer_request(), []
    for begin, end in ((0, 7), (7, 12)):
        request.infer({
            "input_ids": ids[:, begin:end].numpy(), "attention_mask": np.ones((2, end), dtype=np.int64),
            "position_ids": np.arange(begin, end)[None].repeat(2, 0), "beam_idx": np.arange(2, dtype=np.int32),
        })  # fmt: skip
        found.append(request.get_tensor("logits").data.copy())
    change = float(np.abs(np.concatenate(found, 1) - expected).max() / np.abs(expected).max())
    if not change < TOLERANCE:
        raise CapabilityError(
            f"the export of model '{model.name}' differs from it by {change:.2g} of the largest logit, allowed is {TOLERANCE}; "
            "use optimum-cli export openvino"
        )


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python -m treewright.interop.openvino_export MODEL FOLDER")
    export(load(sys.argv[1]), Path(sys.argv[2]))
