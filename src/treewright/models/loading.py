"""Models by name: bundled ones, transformers ids or folders, or an object that is in memory already."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from treewright.core.errors import ModelError, choices
from treewright.core.session import Model
from treewright.models.causal import CausalModel
from treewright.models.random_weights import PREFIX, random_llama

BUNDLED = Path(__file__).resolve().parent.parent / "bundled"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float64": torch.float64, "float16": torch.float16}


@dataclass(slots=True)
class Loaded:
    """A model ready to decode: `.model` (the transformers model), `.tokenizer` (or None: token ids in and out),
    `.protocol` (what the engine talks to) and `.memories` (what methods learn on it, kept between generations)."""

    name: str
    model: Any
    tokenizer: PreTrainedTokenizerBase | None
    protocol: Model
    memories: dict[Any, Any] = field(default_factory=dict)

    @property
    def eos_ids(self) -> tuple[int, ...]:
        """The ids that end a text, from the generation config, else the tokenizer."""
        config = getattr(self.model, "generation_config", None)
        ids = getattr(config, "eos_token_id", None)
        if ids is None and self.tokenizer is not None:
            ids = self.tokenizer.eos_token_id
        return () if ids is None else tuple(ids) if isinstance(ids, (list, tuple)) else (int(ids),)


def bundled_names() -> list[str]:
    """Names of the models that come with the package."""
    return sorted(path.parent.name for path in BUNDLED.glob("*/model.safetensors"))


def load(
    model: str | Path | PreTrainedModel | Model,
    tokenizer: str | Path | PreTrainedTokenizerBase | None = None,
    dtype: str | torch.dtype | None = None,
    device: str | torch.device | None = None,
    compile: bool = False,
) -> Loaded:
    """Loads a model.

    model: a bundled name, a transformers id or folder, "random:0.1b" or "random:0.9b" (random weights of that size, for
    timings), a transformers model in memory, or any object with the model protocol (an exact table, say). tokenizer: a
    name or an object; by default the model's own when it is loaded by name, none for an object or random weights.
    dtype: "float32", "bfloat16", "float64"; by default the checkpoint's own. compile: score through a compiled static
    step (seconds for each new shape, then faster). Raises ModelError.
    """
    wanted = _dtype(dtype)
    if isinstance(model, str) and model.startswith(PREFIX):
        network, name = random_llama(model.removeprefix(PREFIX), wanted).eval(), model
    elif isinstance(model, (str, Path)):
        network, name, source = *_read(str(model), wanted), _source(str(model))
        tokenizer = source if tokenizer is None else tokenizer
    elif isinstance(model, PreTrainedModel):
        network, name = model if wanted is None else model.to(dtype=wanted), type(model).__name__  # type: ignore[call-arg]
    elif hasattr(model, "open") and hasattr(model, "capabilities"):
        return Loaded(type(model).__name__, model, _tokenizer(tokenizer), model)
    else:
        raise ModelError(
            f"model is a {type(model).__name__}; give a bundled name ({', '.join(bundled_names())}), a transformers id or "
            "folder, or a transformers causal language model"
        )
    if device is not None:
        network = network.to(_device(device))
    if network.config.is_encoder_decoder:
        raise ModelError(f"model '{name}' is an encoder-decoder; this version decodes causal language models only")
    return Loaded(name, network, _tokenizer(tokenizer), CausalModel(network, compile))


def _source(name: str) -> str:
    return str(BUNDLED / name) if name in bundled_names() else name


def _read(name: str, dtype: torch.dtype | None) -> tuple[PreTrainedModel, str]:
    if name.startswith((".", "/", "~")) and not Path(name).is_dir():
        raise ModelError(_cannot_load(name, "there is no such folder"))
    try:
        model = AutoModelForCausalLM.from_pretrained(_source(name), dtype=dtype or "auto")
    except (OSError, ValueError) as error:
        raise ModelError(_cannot_load(name, str(error).strip().splitlines()[0])) from error
    return model, name


def _cannot_load(name: str, reason: str) -> str:
    return (
        f"cannot load model '{name}' ({reason}); bundled models: {', '.join(bundled_names())}; "
        "or give a transformers id or a folder with config.json and weights"
    )


def _tokenizer(tokenizer: str | Path | PreTrainedTokenizerBase | None) -> PreTrainedTokenizerBase | None:
    if not isinstance(tokenizer, (str, Path)):
        return tokenizer
    try:
        return AutoTokenizer.from_pretrained(_source(str(tokenizer)))
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelError(f"cannot load tokenizer '{tokenizer}' ({reason}); give its folder or id") from error


def _dtype(dtype: str | torch.dtype | None) -> torch.dtype | None:
    if dtype is None or isinstance(dtype, torch.dtype):
        return dtype
    if dtype not in DTYPES:
        raise ModelError(f"unknown dtype '{dtype}'; {choices(dtype, DTYPES)}")
    return DTYPES[dtype]


def _device(device: str | torch.device) -> torch.device:
    try:
        wanted = torch.device(device)
    except RuntimeError as error:
        raise ModelError(f"unknown device '{device}'; allowed: cpu, cuda, cuda:N") from error
    if wanted.type == "cuda" and not torch.cuda.is_available():
        raise ModelError(f"device '{device}' is not available: torch sees no CUDA device; use cpu")
    return wanted
