"""Plain decoding by its definition, on exact tables, in code of its own: what every lossless method is compared with.

Nothing here calls the engine or its arithmetic. One token after another: logits, constraint, steering, penalties, then
temperature, top-k, top-p, min-p and typical sampling as transformers orders them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from treewright.core.exits import Others
from treewright.core.request import Request, Sampling
from treewright.core.roles import Parts
from treewright.testing.enumerate import Case, Tokens

FORBIDDEN = -math.inf


def plain_law(case: Case) -> dict[Tokens, float]:
    """The probability of every token sequence that plain decoding of the case's row emits.

    The models must be exact tables (`logits(prefix)`). Of the case's parts only steering and constraints count. A row ends
    at its length, at a stop id, or where a constraint leaves nothing.
    """
    parts, request = case.make_parts(), case.request
    law: dict[Tokens, float] = {}
    open_rows: list[tuple[Tokens, float]] = [((), 1.0)]
    while open_rows:
        new, probability = open_rows.pop()
        chances = [] if row_ended(new, request) else next_law(case, parts, new)
        if not any(chances):
            law[new] = law.get(new, 0.0) + probability
        open_rows += [((*new, token), probability * chance) for token, chance in enumerate(chances) if chance > 0]
    return law


def _ends(request: Request) -> tuple[int, ...]:
    return request.stop_ids if request.ignore_eos else request.stop_ids + request.eos_ids


def row_ended(new: Tokens, request: Request) -> bool:
    """Whether nothing can follow these new tokens: by their number, or for a stop id."""
    stopped = bool(new) and new[-1] in _ends(request) and len(new) >= request.min_new_tokens
    return stopped or len(new) == request.max_new_tokens


def next_law(case: Case, parts: Parts, new: Tokens, constrained: bool = True) -> list[float]:
    """Probabilities of the token after the case's prompt and `new`; all 0 where a constraint leaves nothing. constrained False:
    without the constraints."""
    request = case.request
    prompt = request.prompts[case.row]
    prefix = [*prompt, *new]
    logits = [float(value) for value in case.models["target"].logits(prefix)]  # type: ignore[attr-defined]
    allowed = _allowed(case, parts if constrained else replace(parts, constrain=()), new, len(logits))
    if not any(allowed):
        return [0.0] * len(logits)
    logits = _cut(logits, allowed)
    for part in parts.steer:
        named = {name: case.models[name].logits([*part.prompt(name, prompt), *new]) for name in part.models}  # type: ignore[attr-defined]
        others = _with_exits(named, case, prefix) if parts.layers else Others(named)
        logits = [float(value) for value in part.steer(np.array(logits), others, np.array(prefix), (case.row, 0))]
    logits = [_penalise(value, token, prompt, new, request.sampling) for token, value in enumerate(logits)]
    logits = _cut(logits, allowed)
    return warp(logits, request.sampling)


def _with_exits(named: Mapping[str, np.ndarray], case: Case, prefix: Sequence[int]) -> Others:
    target: Any = case.models["target"]
    return Others(named, target.layers, lambda layers, norm: np.stack([target.exit_logits(prefix, at, norm) for at in layers]))


def _allowed(case: Case, parts: Parts, new: Tokens, vocabulary: int) -> list[bool]:
    masks = [constraint.mask((case.row, 0), np.array(new, np.int64)) for constraint in parts.constrain]
    early = len(new) < case.request.min_new_tokens
    return [all(mask[t] for mask in masks) and not (early and t in _ends(case.request)) for t in range(vocabulary)]


def _cut(logits: Sequence[float], allowed: Sequence[bool]) -> list[float]:
    return [value if may else FORBIDDEN for value, may in zip(logits, allowed, strict=True)]


def _penalise(value: float, token: int, prompt: Sequence[int], new: Tokens, sampling: Sampling) -> float:
    value += sum(bias for biased, bias in sampling.logit_bias if biased == token)
    if token in prompt or token in new:
        value = value * sampling.repetition_penalty if value < 0 else value / sampling.repetition_penalty
    if token in new:
        value -= sampling.presence_penalty + sampling.frequency_penalty * new.count(token)
    return value


def warp(logits: list[float], sampling: Sampling) -> list[float]:
    """Logits to probabilities under temperature and warpers."""
    best = max(logits)
    if best == FORBIDDEN:
        return [0.0] * len(logits)
    if sampling.temperature == 0:
        return [1.0 if token == logits.index(best) else 0.0 for token in range(len(logits))]
    if sampling.top_k is not None:
        kth = sorted(logits, reverse=True)[min(sampling.top_k, len(logits)) - 1]
        logits = [value if value >= kth else FORBIDDEN for value in logits]
    chances = _normalise([math.exp((value - best) / sampling.temperature) for value in logits])
    if sampling.top_p is not None:
        by_chance = sorted(range(len(chances)), key=lambda token: -chances[token])
        chances = _keep_until(chances, by_chance, sampling.top_p)
    if sampling.min_p is not None:
        least = sampling.min_p * max(chances)
        chances = _normalise([chance if chance >= least else 0.0 for chance in chances])
    if sampling.typical_p is not None:
        entropy = -sum(chance * math.log(chance) for chance in chances if chance > 0)
        support = [token for token in range(len(chances)) if chances[token] > 0]
        by_surprise = sorted(support, key=lambda token: abs(-math.log(chances[token]) - entropy))
        chances = _keep_until(chances, by_surprise, sampling.typical_p)
    return chances


def _keep_until(chances: list[float], order: list[int], mass: float) -> list[float]:
    """Keeps tokens in this order until their sum has reached `mass`."""
    kept, total = set(), 0.0
    for token in order:
        if total >= mass:
            break
        kept.add(token)
        total += chances[token]
    return _normalise([chance if token in kept else 0.0 for token, chance in enumerate(chances)])


def _normalise(chances: list[float]) -> list[float]:
    total = sum(chances)
    return [chance / total for chance in chances]
