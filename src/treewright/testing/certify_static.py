"""Certificates for models that fill slots in any order: a method against the static schedule that it claims to equal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from treewright.api import Loaded, fits, prepare
from treewright.core.equality import first_divergence
from treewright.core.errors import InputError
from treewright.core.recipe import Recipe
from treewright.core.registry import methods as installed
from treewright.core.request import Sampling
from treewright.testing import laws
from treewright.testing.exact import exact_copy
from treewright.testing.reports import Certificate, Finding, timed

STATIC = "llada"
CLAIM = "equals_static"


@dataclass(frozen=True, slots=True)
class _Decoded:
    """Tokens of every row, and the target's calls of the run."""

    tokens: list[list[int]]
    calls: int


def certify_static(
    model: Loaded, methods: Sequence[str] | None, prompts: Sequence[Sequence[int]], new_tokens: int, seed: int, tables: bool
) -> list[Certificate]:
    """Each method that claims `equals_static`: its law on any-order tables; on this model its tokens are those of `llada`, one
    row at a time, in no more calls: greedy and at temperature 1, alone and in a ragged batch.

    A 16-bit model is copied to float32, since a canvas rounds otherwise beside others. Raises InputError for a method that
    claims no such thing, CapabilityError for one that does not fit the model, both before anything runs.
    """
    own = exact_copy(model)
    claiming = [card.name for card in installed() if CLAIM in card.claims]
    names = [name for name in claiming if fits(own, name)] if methods is None else [Recipe.of(name).name for name in methods]
    for name in names:
        prepare(own, prompts, name, None, None, {"max_new_tokens": new_tokens})
        if name not in claiming:
            raise InputError(
                f"method '{name}' does not claim to equal a static decoding, so there is nothing to certify; methods that do: "
                f"{', '.join(claiming)}"
            )

    def decode(name: str, temperature: float, batch: int) -> _Decoded:
        settings = {
            "max_new_tokens": new_tokens, "sampling": Sampling(temperature), "seed": seed, "ignore_eos": True,
            "batch_rows": batch,
        }  # fmt: skip
        results = prepare(own, prompts, name, None, None, settings).finish()
        calls = {id(call): call for result in results for call in result.trace.calls}
        return _Decoded([result.tokens for result in results], sum(call.kind == "score" for call in calls.values()))

    rows, static = [], {temperature: decode(STATIC, temperature, 1) for temperature in (0.0, 1.0)}
    for name in names:
        if tables:
            rows.append(timed(name, "law on any-order tables", partial(_law, name)))
        for temperature, expected in static.items():
            for batch in (1, len(prompts)):
                compared = partial(_compare, expected, partial(decode, name, temperature, batch), batch)
                rows.append(timed(name, f"tokens of {STATIC} at temperature {temperature:g}, batch {batch}", compared))
    return rows


def _law(name: str) -> Finding:
    try:
        report = laws.equals_static(name)
    except laws.LawBroken as broken:
        return False, str(broken), {}
    runs = report.total("outcomes")
    numbers = {"cases": len(report.cases), "rows": runs}
    return True, f"{len(report.cases)} cases, {runs} rows equal to the static schedule's", numbers


def _compare(expected: _Decoded, decode: Callable[[], _Decoded], batch: int) -> Finding:
    found = decode()
    numbers = {"tokens": sum(map(len, expected.tokens)), "model_calls": found.calls, "static_calls": expected.calls}
    for row, (ours, theirs) in enumerate(zip(found.tokens, expected.tokens, strict=True)):
        index = first_divergence(theirs, ours)
        if index is not None:
            return False, f"row {row} differs at new token {index} of {len(theirs)}", numbers
    told = f"{numbers['tokens']} tokens in {len(found.tokens)} rows equal, {found.calls} model calls"
    if batch > 1:
        return True, told, numbers
    return found.calls <= expected.calls, f"{told} where {STATIC} needs {expected.calls}", numbers
