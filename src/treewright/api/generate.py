"""Decoding in one call, and as a stream of text pieces."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from treewright.api.prepare import prepare
from treewright.api.prompts import Prompt, is_many
from treewright.api.settings import read_settings
from treewright.core.errors import InputError
from treewright.core.grammar import Constraint
from treewright.core.request import Budget
from treewright.core.result import Result
from treewright.core.typed import shown


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
    settings = read_settings(dict(
        max_new_tokens=max_new_tokens, temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p, typical_p=typical_p,
        repetition_penalty=repetition_penalty, presence_penalty=presence_penalty, frequency_penalty=frequency_penalty,
        logit_bias=logit_bias, seed=seed, stop=stop, stop_ids=stop_ids, min_new_tokens=min_new_tokens, ignore_eos=ignore_eos,
        n=n, budget=budget, constraint=constraint, logprobs=logprobs, batch_rows=batch_rows,
    ))  # fmt: skip
    listener = None if stream is None else _to_streamer(stream, many, len(batch), n)
    job = prepare(model, batch, method, options, models, settings)
    results = job.finish(listener)
    return results if many else results[0]


def stream(model: Any, prompt: Prompt, method: str = "plain", **settings: Any) -> Iterator[str]:
    """Text pieces of one continuation as they are decided; takes the keywords of `generate`. Closing the iterator stops
    the decoding. No piece ever holds part of a stop string or half a character. A method that chooses among candidates gives
    its text in one piece, when it has chosen."""
    pieces: list[str] = []
    options, models = settings.pop("options", None), settings.pop("models", None)
    job = prepare(model, [prompt], method, options, models, read_settings(settings, without=("n",)))
    if job.parts().select is not None:
        yield job.finish()[0].text
        return
    for _ in job.engine(_Collect(pieces)).run():
        if piece := "".join(pieces):
            yield piece
        pieces.clear()


def _to_streamer(streamer: Any, many: bool, prompts: int, samples: int) -> _ToStreamer:
    if not isinstance(streamer, Streamer):
        raise InputError(f"stream is {shown(streamer)}; give a transformers streamer, which has put(value) and end()")
    if many or samples > 1:
        raise InputError(f"stream was given with {prompts} prompts and n={samples}; a streamer takes one prompt and n=1")
    return _ToStreamer(streamer)


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
