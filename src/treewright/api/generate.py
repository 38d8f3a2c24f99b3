"""Decoding in one call, and as a stream of text pieces."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from treewright.api.prepare import prepare
from treewright.api.prompts import Prompt, is_many
from treewright.core.errors import InputError
from treewright.core.grammar import Constraint
from treewright.core.request import Budget, Request, Sampling
from treewright.core.result import Result


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
    constraint: Constraint | Sequence[Constraint | None] | None = None,
    logprobs: bool = False,
    batch_rows: int = 16,
    stream: Streamer | None = None,
) -> Result | list[Result]:
    """Decodes one prompt (a `Result`) or a list of prompts (a list of them, in order).

    model: what `load` returns, or anything `load` takes; an encoder-decoder's encoder reads the prompts. method: a name, or
    names joined by '+'. options: the methods' own options by name. models: further models by role, such as {"draft":
    "default-draft"}, and what judges texts: a function f(prompt, text), an object with score(prompt, texts), or a reward
    model (`load_reward`). stream: a transformers streamer. temperature 0 is greedy. n: samples of each prompt, in
    `Result.samples`; of a method that chooses the best n, the best first. budget: stop when its tokens (a row), model_calls
    or seconds (the run) are spent. constraint: of `json_schema`, `regex`, `grammar`, `choice` or `check`, or one for each
    prompt (None: free); a text that the model itself ended fits it, one cut off begins one that does. batch_rows: rows at
    once (those of one search always are).

    Raises InputError, CapabilityError, CompositionError. Cost: one prompt reading, then what the method's file says.
    """
    many = is_many(prompts)
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
    the decoding. No piece ever holds part of a stop string or half a character. A method that chooses among candidates gives
    its text in one piece, when it has chosen."""
    pieces: list[str] = []
    engine_settings = dict(settings)
    options, models = engine_settings.pop("options", None), engine_settings.pop("models", None)
    job = prepare(model, [prompt], method, options, models, _request_settings(engine_settings))
    if job.parts().select is not None:
        yield job.finish()[0].text
        return
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
