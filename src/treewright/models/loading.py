"""Models by name: bundled ones, transformers ids or folders, or an object that is in memory already."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from treewright.core.errors import InputError, ModelError, choices
from treewright.core.session import Model
from treewright.models.causal import CausalModel
from treewright.models.encoder_decoder import EncoderDecoderModel
from treewright.models.grown import PREFIX as GROWN
from treewright.models.grown import SOURCE, grown_llama
from treewright.models.masked import SHIFTED, MaskedModel
from treewright.models.random_weights import PREFIX, random_llama
from treewright.models.spelling import Spelling

BUNDLED = Path(__file__).resolve().parent.parent / "bundled"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float64": torch.float64, "float16": torch.float16}


@dataclass(frozen=True, slots=True)
class Form:
    """What an encoder-decoder's generation configuration asks of every text: the token it begins with, the token that is its
    last where it is cut at its length, and sequences of tokens that it never holds."""

    first: int | None = None
    last: int | None = None
    banned: tuple[tuple[int, ...], ...] = ()

    @classmethod
    def of(cls, config: GenerationConfig | None) -> Form:
        """Reads forced_bos_token_id, forced_eos_token_id and bad_words_ids. Raises ModelError where an end is not one id."""
        first, last = getattr(config, "forced_bos_token_id", None), getattr(config, "forced_eos_token_id", None)
        if isinstance(last, (list, tuple)):
            if len(last) != 1:
                raise ModelError(f"forced_eos_token_id of the generation config is {last}; allowed: one id")
            last = last[0]
        words = getattr(config, "bad_words_ids", None) or ()
        return cls(first, last, tuple(tuple(word) for word in words))


@dataclass(slots=True)
class Loaded:
    """A model ready to decode: `.model` (the transformers model), `.tokenizer` (or None: token ids in and out),
    `.protocol` (what the engine talks to), `.memories` (what methods learn on it, kept between generations) and `.form`
    (tokens that its texts must or must not hold, whatever is asked)."""

    name: str
    model: Any
    tokenizer: PreTrainedTokenizerBase | None
    protocol: Model
    memories: dict[Any, Any] = field(default_factory=dict)
    form: Form = field(default_factory=Form)
    _spelling: Spelling | None = field(default=None, init=False, repr=False)

    @property
    def spelling(self) -> Spelling:
        """What its ids spell. Raises ModelError without a tokenizer, or with one whose tokens spell no bytes of their own."""
        if self._spelling is None:
            if self.tokenizer is None:
                raise ModelError(f"model '{self.name}' has no tokenizer; give one to load()")
            self._spelling = Spelling.of(self.tokenizer, self.name, self.protocol.capabilities.vocabulary)
        return self._spelling

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
    pack: bool = True,
) -> Loaded:
    """Loads a model.

    model: a bundled name, a transformers id or folder, "random:0.1b" or "random:0.9b" (random weights of that size, for
    timings), "grown:0.1b" or "grown:0.9b" (the bundled default's texts at the cost of that size), a transformers model in memory,
    or any object with the model protocol (an exact table, say). A model for masked
    language modelling, or one whose configuration names a mask token (LLaDA, Dream), is decoded in any order. tokenizer: a
    name or an object; by default the model's own when it is loaded by name, none for an object or random weights.
    dtype: "float32", "bfloat16", "float64"; by default the checkpoint's own. compile: score through a compiled static
    step (seconds for each new shape, then faster). pack: keep a second copy of the weights, laid out the way a CPU multiplies
    bfloat16 (faster, see `models/packing.py`), where a quarter of the free memory holds it; without effect on other devices and
    dtypes, and on compiled models, whose graphs hold such copies. A weight that changes is noticed before the next decode, and
    copies and graphs are made anew. Raises ModelError; InputError for a compile or pack that is neither True nor False.
    """
    for name, flag in (("compile", compile), ("pack", pack)):
        if not isinstance(flag, bool):
            raise InputError(f"{name} is {flag!r}; allowed: True or False")
    wanted = dtype_of(dtype)
    if isinstance(model, str) and model.startswith(PREFIX):
        network, name = random_llama(model.removeprefix(PREFIX), wanted).eval(), model
    elif isinstance(model, str) and model.startswith(GROWN):
        network, name = grown_llama(_read(SOURCE, wanted)[0], model.removeprefix(GROWN)), model
        tokenizer = SOURCE if tokenizer is None else tokenizer
    elif isinstance(model, (str, Path)):
        network, name, source = *_read(str(model), wanted), _source(str(model))
        tokenizer = source if tokenizer is None else tokenizer
    elif isinstance(model, PreTrainedModel):
        network, name = model if wanted is None else model.to(dtype=wanted), type(model).__name__  # type: ignore[call-arg]
    elif hasattr(model, "open") and hasattr(model, "capabilities"):
        return Loaded(type(model).__name__, model, tokenizer_of(tokenizer), model)
    else:
        raise ModelError(
            f"model is a {type(model).__name__}; give a bundled name ({', '.join(bundled_names())}), a transformers id or "
            "folder, or a transformers causal, masked or encoder-decoder language model"
        )
    if device is not None:
        network = network.to(device_of(device))
    spelled = tokenizer_of(tokenizer)
    if network.config.is_encoder_decoder:
        if compile:
            raise ModelError(f"model '{name}' is an encoder-decoder, which has no compiled step; load it without compile")
        protocol = EncoderDecoderModel(network, pack)
        return Loaded(name, network, spelled, protocol, form=Form.of(network.generation_config))
    if _is_masked(network):
        return Loaded(name, network, spelled, _masked(name, network, spelled, compile, pack))
    return Loaded(name, network, spelled, CausalModel(network, compile, pack))


def _is_masked(network: PreTrainedModel) -> bool:
    return _predicts_masks(type(network).__name__) or getattr(network.config, "mask_token_id", None) is not None


def _predicts_masks(architecture: str) -> bool:
    return architecture.endswith("ForMaskedLM")


def _masked(
    name: str, network: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None, compile: bool, pack: bool
) -> MaskedModel:  # fmt: skip
    if compile:
        raise ModelError(f"compile was asked for, but model '{name}' is a masked model; only causal models have a compiled step")
    ids = (getattr(network.config, "mask_token_id", None), getattr(tokenizer, "mask_token_id", None))
    mask = next((number for number in ids if number is not None), None)
    if mask is None:
        raise ModelError(f"model '{name}' names no mask token; set config.mask_token_id, or give a tokenizer that has one")
    shift = str(network.config.model_type).lower() in SHIFTED
    return MaskedModel(network, int(mask), shift, None if tokenizer is None else len(tokenizer), pack)


def _source(name: str) -> str:
    return str(BUNDLED / name) if name in bundled_names() else name


def _read(name: str, dtype: torch.dtype | None) -> tuple[PreTrainedModel, str]:
    if name.startswith((".", "/", "~")) and not Path(name).is_dir():
        raise ModelError(_cannot_load(name, "there is no such folder"))
    try:
        config = AutoConfig.from_pretrained(_source(name))
        masked = _predicts_masks((config.architectures or [""])[0])
        family = AutoModelForMaskedLM if masked else AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
        model = family.from_pretrained(_source(name), dtype=dtype or "auto")
    except (OSError, ValueError) as error:
        raise ModelError(_cannot_load(name, str(error).strip().splitlines()[0])) from error
    return model, name


def _cannot_load(name: str, reason: str) -> str:
    return (
        f"cannot load model '{name}' ({reason}); bundled models: {', '.join(bundled_names())}; "
        "or give a transformers id or a folder with config.json and weights"
    )


def tokenizer_of(tokenizer: str | Path | PreTrainedTokenizerBase | None) -> PreTrainedTokenizerBase | None:
    """The tokenizer of that name, or the object itself. Raises ModelError."""
    if not isinstance(tokenizer, (str, Path)):
        return tokenizer
    try:
        return AutoTokenizer.from_pretrained(_source(str(tokenizer)))
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelError(f"cannot load tokenizer '{tokenizer}' ({reason}); give its folder or id") from error


def dtype_of(dtype: str | torch.dtype | None) -> torch.dtype | None:
    """The torch dtype of that name, or the dtype itself. Raises ModelError."""
    if dtype is None or isinstance(dtype, torch.dtype):
        return dtype
    if dtype not in DTYPES:
        raise ModelError(f"unknown dtype '{dtype}'; {choices(dtype, DTYPES)}")
    return DTYPES[dtype]


def device_of(device: str | torch.device) -> torch.device:
    """The torch device of that name. Raises ModelError for one that is unknown or not there."""
    try:
        wanted = torch.device(device)
    except RuntimeError as error:
        raise ModelError(f"unknown device '{device}'; allowed: cpu, cuda, cuda:N") from error
    if wanted.type == "cuda" and not torch.cuda.is_available():
        raise ModelError(f"device '{device}' is not available: torch sees no CUDA device; use cpu")
    return wanted
