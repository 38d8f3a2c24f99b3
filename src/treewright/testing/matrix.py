"""The composition matrix: each lossless drafter under each kind of constraint and each steering, greedy and sampling, has
exactly the law that plain decoding has there; on a model at hand it also emits plain decoding's tokens."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from treewright.api import Loaded, fits, generate
from treewright.core import grammar as grammars
from treewright.core.equality import first_divergence
from treewright.core.errors import CapabilityError, require
from treewright.core.grammar import Grammar
from treewright.core.recipe import Recipe
from treewright.core.registry import called, methods
from treewright.core.request import Sampling
from treewright.core.roles import Parts
from treewright.models.tables import Table
from treewright.parts.constrain.grammar import GrammarMasks, compile_grammar
from treewright.testing.bench import PROMPTS, Bench, Setting, parts_of, with_drafter
from treewright.testing.certify import default_prompts, stand_in
from treewright.testing.definition import plain_law
from treewright.testing.enumerate import exact_law, total_variation
from treewright.testing.exact import exact_copy
from treewright.testing.laws import TOLERANCE, follows_plain
from treewright.testing.reports import Certificate, Coverage
from treewright.testing.vocabulary import END, TOKENS, toy_vocabulary

NONE, PENALTIES = "none", "penalties"
GREEDY, SAMPLING = "greedy", "sampling"
MOST = 20_000

_TOY_SCHEMA = {"type": "object", "properties": {"a": {"enum": [1, 11]}}, "required": ["a"], "additionalProperties": False}
ON_TABLES: Mapping[str, Grammar | None] = {
    NONE: None,
    "regex": grammars.regex("(ab|b){1,2}1?"),
    "JSON schema": grammars.json_schema(_TOY_SCHEMA),
    "grammar": grammars.grammar('start: "a" start "b" | "1"'),
}

_SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 12}, "count": {"type": "integer", "maximum": 999}},
    "required": ["name", "count"],
    "additionalProperties": False,
}
ON_MODELS: Mapping[str, Grammar | None] = {
    NONE: None,
    "regex": grammars.regex(r"[A-Za-z]+(,? [a-z]+){0,40}\."),
    "JSON schema": grammars.json_schema(_SCHEMA),
    "grammar": grammars.grammar('start: item ("," item)*\nitem: /[a-z0-9]{1,8}/ | "(" start ")"'),
}
"""Constraints that any tokenizer can spell."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One composition. steering: "none", "penalties", or the name of a method that claims `composable`."""

    drafter: str
    constraint: str
    steering: str
    sampling: str

    @property
    def method(self) -> str:
        """The recipe's name."""
        return self.drafter if self.steering in (NONE, PENALTIES) else f"{self.drafter}+{self.steering}"

    @property
    def axes(self) -> tuple[str, ...]:
        """Drafter, constraint, steering, sampling."""
        return self.drafter, self.constraint, self.steering, self.sampling

    @property
    def law(self) -> Sampling:
        """The request's warpers and penalties."""
        temperature = 0.0 if self.sampling == GREEDY else 0.9
        if self.steering != PENALTIES:
            return Sampling(temperature)
        return Sampling(temperature, repetition_penalty=1.3, presence_penalty=0.2, frequency_penalty=0.2)


def cells(drafters: Sequence[str] | None = None, pairwise: bool = False) -> list[Cell]:
    """All compositions of the installed methods: every lossless method that drafts or says how long (or those of `drafters`; a
    controller has a drafter beside it, `with_drafter`), the kinds of constraints, no steering, penalties and every method that
    claims to be composable, greedy and sampling. pairwise: few of them, chosen so that every two values of different axes meet
    in at least one."""
    cards = methods()
    named = map(with_drafter, _drafting() if drafters is None else drafters)
    chosen = [name for name in named if drafters is not None or _fits_tables(name)]
    steering = [NONE, PENALTIES, *(c.name for c in cards if "composable" in c.claims and set(c.roles) == {"steer"})]
    axes = (chosen, list(ON_TABLES), steering, [GREEDY, SAMPLING])
    every = [Cell(*values) for values in itertools.product(*axes)]
    return _covering(every) if pairwise else every


def _drafting() -> list[str]:
    """Lossless methods that draft, or that say how long another drafts."""
    return [card.name for card in methods() if card.lossless and ("propose" in card.roles or card.needs_drafter)]


def _fits_tables(name: str) -> bool:
    return not any(Table(2, 0).capabilities.missing(card.needs) for card in Recipe.of(name).cards())


def _pairs(cell: Cell) -> set[tuple[tuple[int, str], ...]]:
    return set(itertools.combinations(enumerate(cell.axes), 2))


def _covering(every: Sequence[Cell]) -> list[Cell]:
    """Greedily, the cell with the most pairs that no earlier one has."""
    left = set().union(*(_pairs(cell) for cell in every))
    chosen: list[Cell] = []
    while left:
        best = max(every, key=lambda cell: len(_pairs(cell) & left))
        chosen.append(best)
        left -= _pairs(best)
    return chosen


def on_tables(cell: Cell, options: Mapping[str, Any] | None = None, seed: int = 1) -> Certificate:
    """The exact law of the composition, every outcome played through the engine on a ragged batch from warm memory, against
    plain decoding's by definition. Cost: up to some seconds."""
    begin = time.perf_counter()
    make, roles = parts_of(cell.method, options)
    grammar = ON_TABLES[cell.constraint]

    def composed() -> Parts:
        if grammar is None:
            return make()
        matchers = [compile_grammar(grammar, toy_vocabulary())] * len(PROMPTS)
        return make().join(Parts(constrain=(GrammarMasks(matchers, (END,), len(TOKENS)),)))

    tokens = 8 if cell.sampling == GREEDY else 2 if roles else 3
    vocabulary = len(TOKENS) if grammar is not None else 4
    ends = (END,) if grammar is not None else (3,)
    setting = Setting("matrix", cell.law, tokens=tokens, vocabulary=vocabulary, stop_ids=ends, fenced=False, warm=True)
    case, coverage = Bench(composed, roles).case(setting, seed), Coverage()
    distance = total_variation(exact_law(case, MOST, coverage), plain_law(case))
    detail = f"total variation {distance:.2g} over {coverage.outcomes} outcomes, {coverage.proposed} claims"
    numbers = {"cell": cell.axes, "total_variation": distance, "outcomes": coverage.outcomes, "proposed": coverage.proposed}
    seconds = time.perf_counter() - begin
    return Certificate(
        cell.method, f"{', '.join(cell.axes)}: law on exact tables", distance <= TOLERANCE, seconds, detail, numbers
    )


def on_model(
    cell: Cell, model: Loaded, models: Mapping[str, Loaded], prompts: Sequence[Sequence[int]], new_tokens: int = 24, seed: int = 0
) -> Certificate | None:
    """Tokens of the composition against those of plain decoding under the same constraint and steering, four ragged rows at
    once, on a float32 or float64 model. None where the cell has no tokens to compare: sampling from drawn drafts, which
    keeps the law and not the tokens, or a constraint on a model without a tokenizer."""
    begin = time.perf_counter()
    grammar = ON_MODELS[cell.constraint]
    if (grammar is not None and model.tokenizer is None) or (cell.sampling == SAMPLING and not _follows(cell.drafter)):
        return None
    reference = cell.method.replace(cell.drafter, "plain", 1)
    ours = _decode(cell, cell.method, model, models, prompts, grammar, new_tokens, seed, len(prompts))
    plain = _decode(cell, reference, model, models, prompts, grammar, new_tokens, seed, 1)
    numbers: dict[str, Any] = {"cell": cell.axes, "tokens": sum(len(result.tokens) for result in plain)}
    numbers["tokens_per_call"] = float(np.mean([result.trace.tokens_per_call for result in ours]))
    detail = f"{numbers['tokens']} tokens in {len(prompts)} rows equal, {numbers['tokens_per_call']:.2f} tokens per call"
    passed = True
    for row, (one, other) in enumerate(zip(ours, plain, strict=True)):
        index = first_divergence(other.tokens, one.tokens)
        if index is not None or one.finish_reason != other.finish_reason:
            passed, detail = False, f"row {row} parts from {reference} at token {index}: {one.tokens} and {other.tokens}"
            break
    return Certificate(cell.method, f"{', '.join(cell.axes)}: tokens", passed, time.perf_counter() - begin, detail, numbers)


def certify_matrix(
    model: Loaded, drafters: Sequence[str] | None = None, models: Mapping[str, Loaded] | None = None, *,
    pairwise: bool = False, seed: int = 0, told: Callable[[Certificate], None] | None = None,
) -> list[Certificate]:  # fmt: skip
    """Every cell of the matrix on exact tables and on this model.

    drafters: lossless methods that draft, or say how long a drafter beside them does; None for all that fit the model.
    models: further models by role; for a role that is missing a distorted copy of the target stands in. pairwise: a covering
    selection of the cells (see `cells`). told: hears of every certificate as it comes.

    A 16-bit model is copied to float32, since equality of tokens is judged there. Raises InputError for a method that is not
    a lossless drafter. Cost: about half a second a cell on a model of a few million parameters.
    """
    if model.protocol.capabilities.order != "left_to_right":
        raise CapabilityError(
            f"model '{model.name}' fills slots in any order, and the matrix composes methods that write from left to right; "
            "leave out --matrix to certify its own methods"
        )
    allowed = _drafting()
    drafters = None if drafters is None else [called(name) or name for name in drafters]
    for name in drafters or ():
        require(name in allowed, "method", name, f"a lossless method that drafts: {', '.join(allowed)}")
    own, given = exact_copy(model), {role: exact_copy(other) for role, other in (models or {}).items()}
    fitting = [name for name in map(with_drafter, drafters or allowed) if fits(own, name)]
    prompts, rows = default_prompts(own, seed), []
    for cell in cells(fitting, pairwise):
        roles = Recipe.of(cell.method).roles()
        others = {role: given.get(role) or stand_in(own, number) for number, role in enumerate(sorted(roles))}
        for found in (on_tables(cell), on_model(cell, own, others, prompts, seed=seed)):
            if found is not None:
                rows.append(found)
                if told is not None:
                    told(found)
    return rows


def _follows(drafter: str) -> bool:
    try:
        return follows_plain(drafter)
    except CapabilityError:
        return False


def _decode(
    cell: Cell, method: str, model: Loaded, models: Mapping[str, Loaded], prompts: Sequence[Sequence[int]],
    grammar: Grammar | None, new_tokens: int, seed: int, batch: int,
) -> list[Any]:  # fmt: skip
    law, roles = cell.law, Recipe.of(method).roles()
    found: Any = generate(
        model, [list(prompt) for prompt in prompts], method, models={role: models[role] for role in roles},
        max_new_tokens=new_tokens, temperature=law.temperature, repetition_penalty=law.repetition_penalty,
        presence_penalty=law.presence_penalty, frequency_penalty=law.frequency_penalty, seed=seed, constraint=grammar,
        batch_rows=batch,
    )  # fmt: skip
    return list(found)
