"""OpenVINO GenAI as a peer: a runtime of its own, on a copy of the model's weights that was exported beforehand.

It gets the token ids that everyone gets, torch's number of threads, and the model's own dtype for its arithmetic and its keys
and values. Left to itself it calculates in bfloat16 wherever the processor has instructions for it, keeps keys and values in 8
bits, and reuses those of earlier prompts that begin alike; none of these would be the same work. Where a processor cannot
calculate in the model's dtype, float32 stands in, and `options` says so.

OpenVINO is an extra and is imported only when a peer is opened.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from treewright.api import Loaded
from treewright.core.errors import CapabilityError, InputError, TreewrightError
from treewright.interop.peers import PeerRun, PeerSettings, network_of

PLAIN, LOOKUP, ASSISTED = "openvino", "openvino:prompt_lookup", "openvino:assisted"
TARGET_EXPORT, DRAFT_EXPORT = "openvino", "openvino:draft"
NEEDS = {PLAIN: (TARGET_EXPORT,), LOOKUP: (TARGET_EXPORT,), ASSISTED: (TARGET_EXPORT, DRAFT_EXPORT)}
"""The peers, and the exports that each reads."""
DRAFTED_TOKENS, LONGEST_NGRAM = 5, 3
"""Tokens of a draft, and the longest n-gram that prompt lookup looks for: the values of OpenVINO GenAI's own samples."""
PRECISIONS = {torch.float32: "f32", torch.bfloat16: "bf16", torch.float16: "f16"}
CAPABILITIES = {"f32": "FP32", "bf16": "BF16", "f16": "FP16"}
KINDS = ("f32", "bf16", "f16")
"""Element types of weights that are not quantized."""


@dataclass(frozen=True, slots=True)
class OpenVino:
    """An opened peer; a `treewright.interop.peers.Peer`. Takes any number of prompts, of different lengths too.

    options: what its figures depend on, for the record: `precision` of the arithmetic, `kv_cache` of keys and values.
    """

    name: str
    pipeline: Any
    options: dict[str, Any]

    def __call__(self, model: Loaded, prompts: Sequence[Sequence[int]], settings: PeerSettings) -> PeerRun:
        """Decodes on the exported weights; `model` gives the end ids. A draft model is the one it was opened with."""
        inputs, config = _inputs(prompts), self._config(model, settings)
        begin = time.perf_counter()
        result = self.pipeline.generate(inputs, config)
        tokens = [list(row) for row in result.tokens]
        seconds = time.perf_counter() - begin
        calls = len(result.perf_metrics.raw_metrics.token_infer_durations)
        drafting = result.extended_perf_metrics
        drafts = None if drafting is None else len(drafting.draft_model_metrics.raw_metrics.m_durations)
        return PeerRun(tokens, seconds, calls or None, None, drafts)

    def _config(self, model: Loaded, settings: PeerSettings) -> Any:
        config = importlib.import_module("openvino_genai").GenerationConfig()
        config.apply_chat_template = False
        config.max_new_tokens = settings.max_new_tokens
        config.do_sample = settings.temperature > 0
        if config.do_sample:
            config.temperature, config.top_p, config.rng_seed = settings.temperature, 1.0, settings.seed
        ends = [] if settings.ignore_eos else list(model.eos_ids)
        config.ignore_eos = not ends
        if ends:
            # The export's own end ids would fill in for one that is not set.
            config.set_eos_token_id(ends[0])
            config.stop_token_ids = set(ends)
        if self.name != PLAIN:
            config.num_assistant_tokens = DRAFTED_TOKENS
        if self.name == LOOKUP:
            config.max_ngram_size = LONGEST_NGRAM
        return config


def open_peer(name: str, model: Loaded, exports: Mapping[str, Path], draft: Loaded | None = None) -> OpenVino:
    """The peer `name` (one of NEEDS) with its pipeline loaded.

    exports: TARGET_EXPORT and, for assisted decoding, DRAFT_EXPORT, each the folder of an export. All weights of an export whose
    names are known are compared with `model`'s (`draft`'s, if given). Costs a reading of the export and a compilation, seconds
    for a small model. Raises TreewrightError where OpenVINO is not installed, InputError for a folder that is missing, holds no
    export or other weights, CapabilityError for a model that is not transformers' or not on the CPU.
    """
    network = network_of(model)
    if network.device.type != "cpu":
        raise CapabilityError(
            f"peer '{name}' runs on the CPU, but model '{model.name}' is on {network.device}; give --device cpu"
        )
    folders = {need: _folder(name, need, draft if need == DRAFT_EXPORT else model, exports) for need in NEEDS[name]}
    try:
        core = importlib.import_module("openvino").Core()
        genai = importlib.import_module("openvino_genai")
    except ModuleNotFoundError as error:
        missing = f"peer '{name}' needs OpenVINO GenAI, which is not installed"
        raise TreewrightError(f"{missing}; run: pip install treewright[peers]") from error
    precision = _precision(core, network.dtype)
    properties = {
        "INFERENCE_PRECISION_HINT": precision, "KV_CACHE_PRECISION": precision, "INFERENCE_NUM_THREADS": torch.get_num_threads(),
    }  # fmt: skip
    check_weights(core, folders[TARGET_EXPORT], model)
    # As many tokens at once as there may be: prompts are read whole, as in its own default.
    scheduler = genai.SchedulerConfig()
    scheduler.enable_prefix_caching, scheduler.max_num_batched_tokens = False, 2**31
    more: dict[str, Any] = {"scheduler_config": scheduler}
    if name == LOOKUP:
        more["prompt_lookup"] = True
    if name == ASSISTED:
        if draft is not None:
            check_weights(core, folders[DRAFT_EXPORT], draft)
        more["draft_model"] = genai.draft_model(folders[DRAFT_EXPORT], "CPU", **properties)
    pipeline = genai.LLMPipeline(folders[TARGET_EXPORT], "CPU", **properties, **more)
    return OpenVino(name, pipeline, {"precision": precision, "kv_cache": precision})


def check_weights(core: Any, folder: Path, model: Loaded) -> None:
    """Compares every exported matrix that has the name of one of the model's with it, value by value. Raises InputError where
    they differ, where weights are quantized, and where no name is known, so that nothing can be said."""
    own = network_of(model).state_dict()
    known = 0
    for constant in core.read_model(folder / "openvino_model.xml").get_ops():
        if constant.get_type_name() != "Constant" or len(constant.get_output_shape(0)) < 2:
            continue
        path = constant.get_friendly_name().removeprefix("self.").removeprefix("network.")
        weight = own.get(path.replace("_openvino_orig_weight", "weight"))
        if weight is None:
            continue
        kind = constant.get_output_element_type(0).get_type_name()
        if kind not in KINDS or not np.array_equal(constant.get_data(dtype=np.float32), weight.float().numpy()):
            raise InputError(
                f"export '{folder}' holds other weights than model '{model.name}': {constant.get_friendly_name()} ({kind}) "
                f"differs; export that checkpoint, not quantized: {_how(model)}"
            )
        known += 1
    if known == 0:
        raise InputError(f"export '{folder}' names no weight as model '{model.name}' does; export that checkpoint: {_how(model)}")


def _inputs(prompts: Sequence[Sequence[int]]) -> Any:
    """Prompts padded on the left, as the pipeline takes them."""
    width = max(len(prompt) for prompt in prompts)
    ids = np.zeros((len(prompts), width), dtype=np.int64)
    mask = np.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, width - len(prompt) :], mask[row, width - len(prompt) :] = prompt, 1
    tensor = importlib.import_module("openvino").Tensor
    return importlib.import_module("openvino_genai").TokenizedInputs(tensor(ids), tensor(mask))


def _precision(core: Any, dtype: torch.dtype) -> str:
    """A dtype in OpenVINO's words, f32 where the processor has no arithmetic for it."""
    wanted = PRECISIONS.get(dtype, "f32")
    return wanted if CAPABILITIES[wanted] in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES") else "f32"


def _folder(name: str, export: str, model: Loaded | None, exports: Mapping[str, Path]) -> Path:
    folder = exports.get(export)
    if folder is None:
        raise InputError(
            f"peer '{name}' needs --export {export}=FOLDER, the weights as OpenVINO reads them; make it: {_how(model)}"
        )
    if not (folder / "openvino_model.xml").is_file():
        raise InputError(f"--export {export}={folder}: no openvino_model.xml is there; make it: {_how(model)}")
    return folder


def _how(model: Loaded | None) -> str:
    """How an export is made."""
    checkpoint = "DRAFT" if model is None else network_of(model).name_or_path or "MODEL"
    return f"python -m treewright.interop.openvino_export {checkpoint} FOLDER"
