"""Constraints that are asked about one token at a time, and weights: definitions in code of their own, on exact tables.

The law a sampler must reproduce is what the constraint leaves of the free law of a token, warpers included; its weight is the
mass that is left. Along a text weights multiply, so the weight of a text times its probability is, in the mean, its
probability as free text if the constraint allows it, and 0 if not.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Hashable

import numpy as np

from treewright.core.errors import CompositionError
from treewright.core.roles import Constraint
from treewright.engine.loop import Engine
from treewright.testing.bench import Fence
from treewright.testing.definition import next_law, row_ended
from treewright.testing.enumerate import Case, PromptOutcomes, Tokens
from treewright.testing.reports import Coverage


class DeadEnds(Fence):
    """The fence of the bench, and nothing may follow the continuation that is the token 1 alone."""

    def mask(self, row: Hashable, continuation: np.ndarray) -> np.ndarray:
        return super().mask(row, continuation) & (continuation.tolist() != [1])


class BlackBoxed:
    """A constraint that answers about single tokens as `known` does, and has no mask."""

    def __init__(self, known: Constraint) -> None:
        self._known = known

    def mask(self, row: Hashable, continuation: np.ndarray) -> np.ndarray:
        raise CompositionError("the constraint of this law has no mask, and the method asked for it; ask `allowed`")

    def allowed(self, row: Hashable, continuation: np.ndarray, token: int) -> bool:
        return self._known.allowed(row, continuation, token)


def text_masses(case: Case, conditioned: bool) -> dict[Tokens, float]:
    """For every text that the case's row can emit its probability: conditioned, that of drawing each token from what the
    constraints leave of the free law (texts that lead nowhere included); else that of the free text, without those."""
    parts, request = case.make_parts(), case.request
    key, masses = (case.row, 0), dict[Tokens, float]()
    open_texts: list[tuple[Tokens, float]] = [((), 1.0)]
    while open_texts:
        new, mass = open_texts.pop()
        if row_ended(new, request):
            masses[new] = mass
            continue
        before = np.array(new, np.int64)
        free = next_law(case, parts, new, constrained=False)
        kept = [
            chance * all(constraint.allowed(key, before, token) for constraint in parts.constrain)
            for token, chance in enumerate(free)
        ]
        if conditioned and not any(kept):
            masses[new] = mass
        share = math.fsum(kept) if conditioned else 1.0
        open_texts += [((*new, token), mass * chance / share) for token, chance in enumerate(kept) if chance > 0]
    return masses


def weighted_masses(case: Case, most: int, coverage: Coverage) -> dict[Tokens, float]:
    """For every text the mean, over all outcomes of all rows of the case's prompt, of the weight of the rows that spell it,
    divided by the number of rows. Cost: one run for each outcome. Raises ValueError beyond `most`."""
    randomness, masses = PromptOutcomes(case.row, case.elsewhere), dict[Tokens, float]()
    for _ in range(most):
        randomness.begin()
        engine = _finished(case, randomness)
        rows = [row for key, row in engine.finished.items() if key[0] == case.row]
        for row in rows:
            mass = randomness.probability * math.exp(row.log_weight) / len(rows)
            if mass > 0:
                masses[tuple(row.tokens)] = masses.get(tuple(row.tokens), 0.0) + mass
        coverage.add(rows[0].steps)
        if not randomness.advance():
            return masses
    raise ValueError(f"the prompt has more than {most} outcomes; give fewer particles, fewer tokens or a smaller vocabulary")


def _finished(case: Case, randomness: PromptOutcomes) -> Engine:
    engine = case.open(randomness, copy.deepcopy(dict(case.memories)))
    for _ in engine.run():
        pass
    return engine
