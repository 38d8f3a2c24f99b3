"""For people who stay with transformers: `model.generate(**inputs, custom_generate=tw.hf.custom_generate("token_recycling"))`.

transformers prepares everything as always (generation config, logits processors, stopping criteria, streamer) and calls us
in the place of its own loop. What it prepared is honoured: with a lossless method, greedy output equals that of
`generate` without us, token for token, and sampled output follows the same law under the seed of `torch.manual_seed`.
What cannot be honoured is refused in one sentence. Two limits of transformers 5.23: `stop_strings=` does not reach a
custom_generate callable (pass `stopping_criteria=[StopStringCriteria(tokenizer, [...])]` instead), and the cache of
`return_dict_in_generate` is None, since ours is not transformers'.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from transformers import GenerationConfig, LogitsProcessorList, PreTrainedModel, StoppingCriteriaList
from transformers.generation import EosTokenCriteria, GenerateDecoderOnlyOutput, MaxLengthCriteria
from transformers.generation.configuration_utils import GenerationMode

from treewright.api import Loaded, Streamer, load, prepare
from treewright.core.errors import InputError
from treewright.core.recipe import Recipe
from treewright.core.request import Sampling
from treewright.core.roles import Parts
from treewright.interop.lockstep import Lockstep
from treewright.interop.processors import Processors

OUTPUTS = ("output_scores", "output_logits", "output_attentions", "output_hidden_states")
INERT = {"attention_mask", "position_ids", "past_key_values", "use_cache", "logits_to_keep", *OUTPUTS}
"""Model inputs that core prepares and that are checked or made anew here."""


def custom_generate(
    method: str = "token_recycling", options: Mapping[str, Any] | None = None, models: Mapping[str, Any] | None = None,
    *, compile: bool = False,
) -> CustomGenerate:  # fmt: skip
    """A callable for `custom_generate=` of transformers' `generate`.

    method, options, models, compile: as in `treewright.generate` and `treewright.load`. Make it once and use it again:
    what a method learns on a model stays with it. Raises UnknownMethod and UnknownOption here, InputError for a method that
    chooses among texts, and when called InputError, CapabilityError and CompositionError for what the model or the request does
    not allow.
    """
    for card in Recipe.of(method, options).cards():
        if "select" in card.roles:
            raise InputError(
                f"method '{card.name}' chooses among finished texts, which transformers' generate has no place for; "
                "call treewright.generate"
            )
    return CustomGenerate(method, dict(options or {}), dict(models or {}), compile)


class CustomGenerate:
    """One method in the place of transformers' decoding loop; made by `custom_generate`."""

    def __init__(self, method: str, options: dict[str, Any], models: dict[str, Any], compile: bool) -> None:
        self._method, self._options, self._models, self._compile = method, options, models, compile
        self._target: tuple[Loaded, torch.dtype, torch.device] | None = None

    def __call__(
        self, model: PreTrainedModel, input_ids: torch.Tensor, logits_processor: LogitsProcessorList,
        stopping_criteria: StoppingCriteriaList, generation_config: GenerationConfig, synced_gpus: bool = False,
        streamer: Streamer | None = None, **model_kwargs: Any,
    ) -> torch.Tensor | GenerateDecoderOnlyOutput:  # fmt: skip
        """input_ids [R, T] as transformers prepared them. Gives sequences [R, T + new], or the output object."""
        if model.config.is_encoder_decoder:
            raise InputError(
                f"model {type(model).__name__} is an encoder-decoder, which treewright's custom_generate does not decode; "
                "call treewright.generate with the encoder's input as the prompt"
            )
        streamer = _callers("streamer") if streamer is None else streamer
        _check_config(generation_config, synced_gpus or _callers("synced_gpus"), _callers("assistant_model"))
        _check_inputs(model_kwargs)
        padding = _padding(input_ids, model_kwargs)
        samples = generation_config.num_return_sequences
        prompts = [input_ids[row, padding[row] :].tolist() for row in range(0, input_ids.shape[0], samples)]
        greedy = generation_config.do_sample is not True
        target = self._load(model)
        room = _room(target, stopping_criteria, generation_config, input_ids.shape[1], max(map(len, prompts)))
        eos_ids, criteria = _split(stopping_criteria)
        settings = {
            "max_new_tokens": room, "sampling": Sampling(temperature=0.0 if greedy else 1.0), "samples": samples,
            "seed": 0 if greedy else int(torch.randint(2**63 - 1, (1,))), "ignore_eos": True, "stop_ids": eos_ids,
            "batch_rows": input_ids.shape[0],
        }  # fmt: skip
        job = prepare(target, prompts, self._method, self._options, self._models, settings)
        steering = Processors(logits_processor, input_ids, padding, samples)
        rows = Lockstep(input_ids, samples, criteria, room, _pad(stopping_criteria, generation_config), streamer)
        engine = job.engine(rows, Parts(steer=(steering,)) if logits_processor else None)
        for _ in engine.run():
            pass
        _check_ends({prompt * samples + sample: row for (prompt, sample), row in engine.finished.items()})
        sequences = rows.sequences()
        if generation_config.return_dict_in_generate:
            return GenerateDecoderOnlyOutput(sequences=sequences)  # type: ignore[arg-type]
        return sequences

    def _load(self, model: PreTrainedModel) -> Loaded:
        """The model behind the protocol, kept between calls while it stays what and where it is."""
        known = self._target
        if known is None or known[0].model is not model or known[1:] != (model.dtype, model.device):
            self._models = {role: load(other) if not isinstance(other, Loaded) else other for role, other in self._models.items()}
            self._target = known = (load(model, compile=self._compile), model.dtype, model.device)
        return known[0]


def _callers(name: str) -> Any:
    """An argument of the `generate` that called us.

    transformers 5.23 passes a custom_generate callable neither its streamer nor its assistant model (it drops what its
    own loops take by name). A streamer that never hears `end()` would leave its reader waiting for ever, so they are read
    from the calling frame; None where the caller is not `generate`.
    """
    here = inspect.currentframe()
    caller = here.f_back.f_back if here is not None and here.f_back is not None else None
    return caller.f_locals.get(name) if caller is not None and caller.f_code.co_name == "generate" else None


def _check_config(config: GenerationConfig, synced_gpus: bool | None, assistant: Any) -> None:
    mode = config.get_generation_mode(assistant)
    wanted = ", ".join(name for name in OUTPUTS if getattr(config, name))
    refused = [
        (assistant is not None, "assistant_model is given",
         "leave it out and use a method that takes models={'draft': ...}, such as speculative_sampling"),
        (config.num_beams not in (None, 1), f"num_beams is {config.num_beams}", "set it to 1"),
        (mode not in (GenerationMode.GREEDY_SEARCH, GenerationMode.SAMPLE),
         f"the generation config asks for {mode.value}", "leave out the options that choose it"),
        (wanted and config.return_dict_in_generate, f"{wanted} is set", "leave it out, only sequences are returned"),
        (config.cache_implementation not in (None, "dynamic"),
         f"cache_implementation is '{config.cache_implementation}'", "leave it out, treewright keeps a memory of its own"),
        (config.use_cache is False, "use_cache is False", "leave it at True, treewright always keeps a memory"),
        (synced_gpus, "synced_gpus is True", "run without sharded parameters"),
    ]  # fmt: skip
    for refuse, what, remedy in refused:
        if refuse:
            raise InputError(
                f"{what}, which treewright's custom_generate cannot honour; {remedy}, or call generate without custom_generate"
            )


def _check_inputs(model_kwargs: Mapping[str, Any]) -> None:
    unknown = sorted(name for name, value in model_kwargs.items() if value is not None and name not in INERT)
    if unknown:
        raise InputError(
            f"model input '{unknown[0]}' is given, which treewright's custom_generate cannot honour; "
            "it takes input_ids and attention_mask only"
        )
    cache = model_kwargs.get("past_key_values")
    if cache is not None and (getattr(cache, "_is_user_defined", False) or cache.get_seq_length() > 0):
        raise InputError(
            "past_key_values is given, which treewright's custom_generate cannot honour, since it keeps a memory of its own; "
            "leave it out and give the whole text as input_ids"
        )


def _padding(input_ids: torch.Tensor, model_kwargs: Mapping[str, Any]) -> list[int]:
    """Pad tokens on the left of each row, [R]. Refuses other padding and positions that do not follow from it."""
    rows, width = input_ids.shape
    mask = model_kwargs.get("attention_mask")
    if mask is not None and mask.shape != input_ids.shape:
        raise InputError(f"attention_mask is {list(mask.shape)} and input_ids {list(input_ids.shape)}; give equal shapes")
    counts = torch.zeros(rows, dtype=torch.long) if mask is None else (mask == 0).sum(dim=1).cpu()
    visible = torch.arange(width)[None] >= counts[:, None]
    if mask is not None and not torch.equal(visible, mask.cpu() != 0):
        row = int((visible != (mask.cpu() != 0)).any(dim=1).nonzero()[0])
        raise InputError(f"attention_mask of row {row} is {mask[row].tolist()}; allowed: zeros, then ones; pad on the left")
    positions = model_kwargs.get("position_ids")
    if positions is not None:
        expected = (torch.arange(width)[None] - counts[:, None])[visible]
        if not torch.equal(positions.cpu().expand(rows, width)[visible], expected):
            raise InputError("position_ids are given that do not count each row's tokens from 0; leave them out")
    return counts.tolist()


def _room(target: Loaded, criteria: StoppingCriteriaList, config: GenerationConfig, width: int, longest: int) -> int:
    """New tokens that every row may get: lengths count the padding in transformers, positions do not."""
    lengths = [criterion.max_length for criterion in criteria if type(criterion) is MaxLengthCriteria]
    room = min(lengths, default=config.max_length) - width
    if room < 1:
        raise InputError(f"max_length leaves {room} new tokens after {width} tokens of input; give max_new_tokens >= 1")
    positions = target.protocol.capabilities.max_length
    if positions is not None and longest + room > positions > longest:
        warnings.warn(
            f"{room} new tokens after a prompt of {longest} are more than the {positions} positions of model '{target.name}'; "
            f"every row ends after {positions - longest} new tokens at the latest",
            stacklevel=3,
        )
        room = positions - longest
    return room


def _split(criteria: StoppingCriteriaList) -> tuple[tuple[int, ...], list[Any]]:
    """End ids, which the engine itself looks for, and the criteria that must be asked. Lengths are dealt with by `_room`."""
    ends = {int(token) for c in criteria if type(c) is EosTokenCriteria for token in c.eos_token_id}
    return tuple(sorted(ends)), [c for c in criteria if type(c) not in (EosTokenCriteria, MaxLengthCriteria)]


def _pad(criteria: StoppingCriteriaList, config: GenerationConfig) -> int | None:
    """What follows the end of a row, None where transformers lets rows go on (it pads only where an end token is known)."""
    known = any(hasattr(criterion, "eos_token_id") for criterion in criteria)
    return int(config._pad_token_tensor) if known and config._pad_token_tensor is not None else None


def _check_ends(rows: Mapping[int, Any]) -> None:
    for number, row in sorted(rows.items()):
        if row.finish == "dead_end":
            raise InputError(
                f"the logits processors leave no token for row {number} after {len(row.tokens)} new tokens; "
                "allowed: processors that always leave one, such as an end token"
            )


__all__: Sequence[str] = ("custom_generate",)
