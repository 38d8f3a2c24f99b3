"""The library's front door: wires a model, a recipe and the engine together."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any, Protocol, runtime_checkable

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic import dataclasses as pydantic_dataclasses

from treewright.core.card import Card
from treewright.core.errors import CapabilityError, ConstraintError, ContextError, InputError, UnknownOption
from treewright.core.grammar import Grammar
from treewright.core.recipe import Recipe
from treewright.core.registry import entries, entry
from treewright.core.request import Budget, Request, Sampling
from treewright.core.result import Result
from treewright.core.roles import Parts
from treewright.engine.detokenize import Decode
from treewright.engine.loop import Engine, Listener, Run
from treewright.engine.rows import Row
from treewright.models.loading import Loaded, load
from treewright.parts.constrain.grammar import GrammarMasks, compile_grammar, vocabulary_of

Prompt = str | Sequence[int] | Sequence[Mapping[str, str]]
"""Text, token ids, or a chat: a list of {"role": ..., "content": ...}, which the tokenizer's chat template lays out."""

CPU_COLUMNS = 64
"""On two cores, rounds wider than this in all (rows times claims) cost more than they bring; see docs/log.md."""


@runtime_checkable
class Streamer(Protocol):
    """The transformers streamer protocol."""

    def put(self, value: Any) -> None: ...

    def end(self) -> None: ...


def generate(
    model: Any,
    prompts: Prompt | Sequence[Prompt],
    method: str = "plain",
    options: Mapping[str, Any] | None = None,
    models: Mapping[str, Any] | None = None,
    *,
    max_new_tokens: int = 128,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    typical_p: float | None = None,
    repetition_penalty: float = 1.0,
    presence_penalty: float = 0.0,
    frequency_penalty: float = 0.0,
    logit_bias: Mapping[int, float] | None = None,
    seed: int = 0,
    stop: str | Sequence[str] | None = None,
    stop_ids: Sequence[int] = (),
    min_new_tokens: int = 0,
    ignore_eos: bool = False,
    n: int = 1,
    budget: Budget | Mapping[str, Any] | None = None,
    constraint: Grammar | Sequence[Grammar | None] | None = None,
    logprobs: bool = False,
    batch_rows: int = 16,
    stream: Streamer | None = None,
) -> Result | list[Result]:
    """Decodes one prompt (a `Result`) or a list of prompts (a list of them, in order).

    model: what `load` returns, or anything `load` takes. method: a name, or names joined by '+'. options: the methods'
    own options by name. models: further models by role, such as {"draft": "default-draft"}. temperature 0 is greedy.
    n: samples of each prompt; with n > 1 `Result.samples` holds them all. budget: stop when its tokens (a row), model_calls
    or seconds (the run) are spent. constraint: of `json_schema`, `regex`, `grammar` or `choice`, or a list with one for each
    prompt (None: free); a text that the model itself ended fits it, one cut off is the beginning of one that does. batch_rows:
    rows decoded at once; more wait. stream: a transformers streamer, told of tokens as they become text (one prompt, n = 1).

    Raises InputError, CapabilityError for a model without what the method needs, CompositionError for methods that do not go
    together. Cost: one prompt reading, then what the method's file says.
    """
    many = _is_many(prompts)
    batch: list[Any] = list(prompts) if many else [prompts]
    sampling = Sampling(
        temperature, top_k, top_p, min_p, typical_p, repetition_penalty, presence_penalty, frequency_penalty,
        tuple(sorted((logit_bias or {}).items())),
    )  # fmt: skip
    settings = dict(
        max_new_tokens=max_new_tokens, min_new_tokens=min_new_tokens, sampling=sampling, seed=seed, samples=n,
        stop=(stop,) if isinstance(stop, str) else tuple(stop or ()), stop_ids=tuple(stop_ids), ignore_eos=ignore_eos,
        budget=budget if isinstance(budget, Budget) else Budget(**(budget or {})), logprobs=logprobs, batch_rows=batch_rows,
        constraint=constraint,
    )  # fmt: skip
    listener = None if stream is None else _ToStreamer(stream)
    if listener is not None and (many or n > 1):
        raise InputError(f"stream was given with {len(batch)} prompts and n={n}; a streamer takes one prompt and n=1")
    job = prepare(model, batch, method, options, models, settings)
    results = job.finish(listener)
    return results if many else results[0]


def stream(model: Any, prompt: Prompt, method: str = "plain", **settings: Any) -> Iterator[str]:
    """Text pieces of one continuation as they are decided; takes the keywords of `generate`. Closing the iterator stops
    the decoding. No piece ever holds part of a stop string or half a character."""
    pieces: list[str] = []
    engine_settings = dict(settings)
    options, models = engine_settings.pop("options", None), engine_settings.pop("models", None)
    job = prepare(model, [prompt], method, options, models, _request_settings(engine_settings))
    for _ in job.engine(_Collect(pieces)).run():
        if piece := "".join(pieces):
            yield piece
        pieces.clear()


def _request_settings(keywords: dict[str, Any]) -> dict[str, Any]:
    """The keywords of `generate` as the fields of a Request, for callers that do not go through its signature."""
    sampling_names = {field.name for field in dataclasses.fields(Sampling)}
    request_names = {field.name for field in dataclasses.fields(Request)}
    request_names = (request_names - {"prompts", "sampling", "eos_ids", "samples", "constraints"}) | {"constraint"}
    unknown = set(keywords) - sampling_names - request_names
    if unknown:
        raise InputError(f"unknown setting '{min(unknown)}'; allowed: {', '.join(sorted(sampling_names | request_names))}")
    chosen = {name: value for name, value in keywords.items() if name in sampling_names}
    chosen["logit_bias"] = tuple(sorted(dict(chosen.get("logit_bias") or {}).items()))
    rest = {name: value for name, value in keywords.items() if name in request_names}
    stop = rest.get("stop") or ()
    rest["stop"] = (stop,) if isinstance(stop, str) else tuple(stop)
    if isinstance(rest.get("budget"), Mapping):
        rest["budget"] = Budget(**rest["budget"])
    return {**rest, "sampling": Sampling(**chosen)}


def _constraints(given: Any, prompts: int) -> tuple[Grammar | None, ...]:
    every = tuple(given) if isinstance(given, (list, tuple)) else (given,) * prompts
    wrong = next((one for one in every if one is not None and not isinstance(one, Grammar)), None)
    if wrong is not None:
        raise ConstraintError(
            f"constraint is {wrong!r}; give what treewright.json_schema, regex, grammar or choice return, or a list of those"
        )
    return every if any(every) else ()


@dataclasses.dataclass(slots=True)
class Job:
    """A checked request over a loaded model, ready to run; made by `prepare`. matchers: the compiled constraints."""

    target: Loaded
    recipe: Recipe
    request: Request
    protocols: dict[str, Any]
    matchers: list[Any] = dataclasses.field(default_factory=list)

    def engine(self, listener: Listener | None = None, extra: Parts | None = None) -> Engine:
        """A fresh engine: its parts are new, what methods learned on the model stays. `extra` joins further parts."""
        parts = build_parts(self.recipe)
        parts = parts if extra is None else parts.join(extra)
        if self.matchers:
            masks = GrammarMasks(self.matchers, self.target.eos_ids, self.target.protocol.capabilities.vocabulary)
            parts = parts.join(Parts(constrain=(masks,)))
        columns = CPU_COLUMNS if _on_cpu(self.target) else None
        return Engine(Run(self.request, self.protocols, parts, None, self.target.memories, self._decode(), listener, columns))

    def _decode(self) -> Decode | None:
        tokenizer = self.target.tokenizer
        if tokenizer is None:
            return None
        return lambda ids: str(tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def finish(self, listener: Listener | None = None) -> list[Result]:
        """Runs to the end; one Result for each prompt."""
        engine = self.engine(listener)
        for _ in engine.run():
            pass
        return [self._result(engine, prompt) for prompt in range(len(self.request.prompts))]

    def _result(self, engine: Engine, prompt: int) -> Result:
        rows = [engine.finished[prompt, sample] for sample in range(self.request.samples)]
        samples = [row.to_sample(self._text(row), self.request.logprobs) for row in rows]
        trace = engine.traces[prompt, 0]
        trace.recipe = self.recipe.to_json()
        first = samples[0]
        return Result(first.text, first.tokens, first.finish_reason, first.logprobs, first.log_weight, samples, trace)

    def _text(self, row: Row) -> str:
        decode = self._decode()
        return "" if decode is None else row.spell(decode, self.request)


def prepare(
    model: Any, prompts: Sequence[Prompt], method: str, options: Mapping[str, Any] | None,
    models: Mapping[str, Any] | None, settings: Mapping[str, Any],
) -> Job:  # fmt: skip
    """Checks everything before the first forward. `settings` are the fields of a Request but for the prompts, and
    `constraint` as `generate` takes it."""
    recipe = Recipe.of(method, options)
    cards = recipe.cards()
    target = model if isinstance(model, Loaded) else load(model)
    _check_needs(target, cards)
    others = _check_models(target, cards, models or {})
    ids = tuple(_encode(target, prompt, index) for index, prompt in enumerate(prompts))
    _check_context(target, ids)
    if settings.get("stop") and target.tokenizer is None:
        raise InputError(f"stop is {settings['stop']} but model '{target.name}' has no tokenizer; give stop_ids, or a tokenizer")
    fields = dict(settings)
    constraints = _constraints(fields.pop("constraint", None), len(ids))
    request = Request(prompts=ids, eos_ids=target.eos_ids, constraints=constraints, **fields)
    protocols = {"target": target.protocol, **{role: other.protocol for role, other in others.items()}}
    return Job(target, recipe, request, protocols, _compile(target, request))


def _compile(target: Loaded, request: Request) -> list[Any]:
    """The constraint of every prompt over the target's vocabulary, each grammar compiled once; [] where all are free."""
    if not request.constraints:
        return []
    if request.ignore_eos:
        raise ConstraintError("ignore_eos is True with a constraint, whose texts end with the model's end of text; leave it out")
    if target.tokenizer is None:
        raise ConstraintError(f"a constraint was given but model '{target.name}' has no tokenizer; give one to load()")
    vocabulary = vocabulary_of(target.tokenizer, target.protocol.capabilities.vocabulary, target.eos_ids)
    compiled = {grammar: compile_grammar(grammar, vocabulary) for grammar in set(request.constraints) if grammar is not None}
    return [None if grammar is None else compiled[grammar] for grammar in request.constraints]


def build_parts(recipe: Recipe) -> Parts:
    """The live roles of a recipe; plain decoding's verifier where no method brings one."""
    built = Parts()
    for name in recipe.methods:
        module = entry(name).load()
        built = built.join(module.parts(_config(name, module.Config, recipe.options_of(name))))
    if built.verify is None:
        built.verify = entry("plain").load().parts(entry("plain").load().Config()).verify
    return built


def _config(name: str, config: type, options: Mapping[str, Any]) -> Any:
    """A method's Config from options, text such as "32" read as its field's type."""
    try:
        values = _reader(config).validate_python(dict(options))
    except ValidationError as error:
        first = error.errors()[0]
        field = str(first["loc"][0]) if first["loc"] else "?"
        if first["type"] == "value_error":
            option, rest = str(first["ctx"]["error"]).split(" ", 1)
            raise UnknownOption(f"option '{name}.{option}' {rest}") from error
        allowed = next(option.type for option in entry(name).card.options if option.name == field)
        raise UnknownOption(f"option '{name}.{field}' is {options.get(field)!r}; allowed: {allowed}") from error
    return config(**{field.name: getattr(values, field.name) for field in dataclasses.fields(config)})


@cache
def _reader(config: type) -> TypeAdapter[Any]:
    """Reads options as a Config's fields; built once for each Config, since building takes longer than a short run."""
    return TypeAdapter(pydantic_dataclasses.dataclass(config, config=ConfigDict(extra="forbid"), frozen=True))


def _is_many(prompts: Any) -> bool:
    """True for a list of prompts, False for one prompt: a string, token ids, or a chat."""
    if isinstance(prompts, str):
        return False
    if not isinstance(prompts, Sequence):
        raise InputError(
            f"prompts is a {type(prompts).__name__}; give text, a list of token ids (a tensor's .tolist()), a chat, or a list "
            "of those"
        )
    first = next(iter(prompts), None)
    return not isinstance(first, (int, Mapping)) and not (first is None and isinstance(prompts, tuple))


def _encode(target: Loaded, prompt: Prompt, index: int) -> tuple[int, ...]:
    if not isinstance(prompt, Sequence) or (not isinstance(prompt, str) and any(isinstance(part, str) for part in prompt)):
        raise InputError(
            f"prompt {index} is a {type(prompt).__name__} of no known kind; give text, a list of token ids, or a chat"
        )
    if not isinstance(prompt, str) and all(isinstance(token, int) for token in prompt):
        return _check_ids(target, tuple(prompt), index)  # type: ignore[arg-type]
    if target.tokenizer is None:
        raise InputError(f"prompt {index} is text but model '{target.name}' has no tokenizer; give token ids, or a tokenizer")
    if isinstance(prompt, str):
        return tuple(target.tokenizer(prompt)["input_ids"])
    if target.tokenizer.chat_template is None:
        raise InputError(f"prompt {index} is a chat but model '{target.name}' has no chat template; give text")
    turns: list[Any] = list(prompt)
    ids: Any = target.tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=False)
    return tuple(ids)


def _check_ids(target: Loaded, ids: tuple[int, ...], index: int) -> tuple[int, ...]:
    vocabulary = target.protocol.capabilities.vocabulary
    wrong = next((token for token in ids if not 0 <= token < vocabulary), None)
    if wrong is not None:
        raise InputError(f"prompt {index} holds token id {wrong}; model '{target.name}' has ids 0 to {vocabulary - 1}")
    return ids


def _check_context(target: Loaded, prompts: Sequence[Sequence[int]]) -> None:
    most = target.protocol.capabilities.max_length
    for index, prompt in enumerate(prompts):
        if most is not None and len(prompt) >= most:
            raise ContextError(
                f"prompt {index} has {len(prompt)} tokens; model '{target.name}' has {most} positions, "
                f"so a prompt may have at most {most - 1}; shorten it"
            )


def _check_needs(target: Loaded, cards: Sequence[Card]) -> None:
    for card in cards:
        missing = target.protocol.capabilities.missing(card.needs)
        if missing:
            fitting = [e.card.name for e in entries().values() if not target.protocol.capabilities.missing(e.card.needs)]
            raise CapabilityError(
                f"method '{card.name}' needs {', '.join(missing)}, which model '{target.name}' does not have; "
                f"methods that fit it: {', '.join(fitting) or 'none'}"
            )


def _check_models(target: Loaded, cards: Sequence[Card], models: Mapping[str, Any]) -> dict[str, Loaded]:
    needed = {role: card.name for card in cards for role in card.models}
    for role, method in needed.items():
        if role not in models:
            raise InputError(
                f"method '{method}' needs a model for the role '{role}'; give models={{'{role}': ...}} (--with {role}=MODEL)"
            )
    unused = sorted(set(models) - set(needed))
    if unused:
        raise InputError(
            f"no method in {'+'.join(card.name for card in cards)} uses a model for the role '{unused[0]}'; "
            f"roles used: {', '.join(needed) or 'none'}"
        )
    others = {role: other if isinstance(other, Loaded) else load(other) for role, other in models.items()}
    for role, other in others.items():
        theirs, ours = other.protocol.capabilities.vocabulary, target.protocol.capabilities.vocabulary
        if theirs != ours:
            raise CapabilityError(
                f"model '{other.name}' for the role '{role}' has a vocabulary of {theirs} tokens and the target "
                f"'{target.name}' one of {ours}; give a model with the target's tokenizer"
            )
    return others


def _on_cpu(target: Loaded) -> bool:
    return getattr(getattr(target.model, "device", None), "type", "cpu") == "cpu"


class _Collect:
    """Listener that gathers text pieces."""

    def __init__(self, pieces: list[str]) -> None:
        self._pieces = pieces

    def hear(self, prompt: int, sample: int, tokens: list[int], piece: str, finished: bool) -> bool:
        self._pieces.append(piece)
        return True


class _ToStreamer:
    """Listener that feeds a transformers streamer."""

    def __init__(self, streamer: Streamer) -> None:
        self._streamer = streamer

    def hear(self, prompt: int, sample: int, tokens: list[int], piece: str, finished: bool) -> bool:
        import torch

        if tokens:
            self._streamer.put(torch.tensor(tokens))
        if finished:
            self._streamer.end()
        return True
