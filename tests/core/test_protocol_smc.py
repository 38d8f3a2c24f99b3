"""Protocol: sequential Monte Carlo over particles whose tokens are drawn by adaptive weighted rejection sampling. The
verifier owns the draw (a black-box check, no mask), weights its tokens, and resamples through `Verdict.rows`."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Hashable

import numpy as np
import pytest

from treewright.core.randomness import DRAW, SEARCH, Keyed
from treewright.core.request import Request, Sampling
from treewright.core.roles import Parts, Round, TargetLaw, Verdict
from treewright.engine.loop import Engine, Run
from treewright.models.tables import Table
from treewright.testing.enumerate import Outcomes

Check = Callable[[list[int]], bool]


class Particles:
    """Toy method. A token is drawn, checked, and if refused drawn again without replacement; what was refused before, and
    one look at the next in order, give an unbiased estimate of the mass that is allowed (the recursive estimator)."""

    def __init__(self, check: Check, resample: bool) -> None:
        self.check, self.resample, self.forked = check, resample, False

    def draw(self, round: Round, chance: np.ndarray, row: int) -> tuple[int, float]:
        new = round.text.of(row)[round.text.prompt[row] :].tolist()
        left, weight, trials = chance.copy(), 1.0, itertools.count()
        key, position = round.keys[row], round.position(row, 0)
        while left.any():
            token = round.randomness.index(left, key, position, DRAW, next(trials))
            share, left[token] = left[token] / left.sum(), 0.0
            if not self.check([*new, token]):
                weight *= 1 - share
                continue
            if left.any() and not self.check([*new, round.randomness.index(left, key, position, DRAW, next(trials))]):
                weight *= share
            return token, math.log(weight)
        return -1, -math.inf

    def verify(self, round: Round, law: TargetLaw) -> Verdict:
        drawn = [self.draw(round, law.probs(row, 0), row) for row in range(round.rows)]
        tokens, gained = [token for token, _ in drawn], [weight for _, weight in drawn]
        weights, dead = [[weight] for weight in gained], [token < 0 for token in tokens]
        verdict = Verdict([[] for _ in drawn], tokens, log_weight=weights, finished=dead)
        total = np.exp(np.add(round.log_weight, gained))
        if self.resample and total.any() and round.depth_left > 0:
            place = [(key, round.position(row, 0)) for row, key in enumerate(round.keys)]
            verdict.rows = rows = [round.randomness.index(total, key, position, SEARCH) for key, position in place]
            self.forked |= len(set(rows)) < len(rows)
            verdict.extra, verdict.finished = [tokens[row] for row in rows], None
            verdict.log_weight = [[math.log(total.mean()) - round.log_weight[row]] for row in rows]
        return verdict


class Together:
    """Plays all outcomes of all particles: `Outcomes` knows one row, so a particle becomes part of the position."""

    def __init__(self, outcomes: Outcomes) -> None:
        self.outcomes = outcomes

    def index(self, weights: np.ndarray, row: Hashable, position: int, stream: int, trial: int = 0) -> int:
        return self.outcomes.index(weights, 0, position * 8 + row[1], stream, trial)  # type: ignore[index]


def expectation(
    table: Table, check: Check, particles: int, tokens: int, resample: bool, top_k: int | None = None
) -> dict[tuple, float]:
    """E[1/N sum over particles of weight * 1{text}] for every text, over every outcome of a run through the engine."""
    request = Request(prompts=((1, 0),), max_new_tokens=tokens, samples=particles, sampling=Sampling(1.0, top_k))
    outcomes, expected, more, forked, died = Outcomes(0, Keyed(0)), {}, True, False, False
    while more:
        outcomes.begin()
        method = Particles(check, resample)
        engine = Engine(Run(request, {"target": table}, Parts(verify=method), Together(outcomes)))  # type: ignore[arg-type]
        for _ in engine.run():
            pass
        for row in engine.finished.values():
            assert len(row.tokens) == tokens or row.log_weight == -math.inf
            text, mass = tuple(row.tokens), outcomes.probability * math.exp(row.log_weight) / particles
            expected[text] = expected.get(text, 0.0) + mass
            died |= row.finish == "dead_end"
        forked |= method.forked
        more = outcomes.advance()
    assert died == (tokens > 1) and forked == resample
    return {text: mass for text, mass in expected.items() if mass > 0}


def by_definition(table: Table, check: Check, tokens: int, top_k: int | None = None) -> dict[tuple, float]:
    """p(text) of every text whose every prefix passes the check."""
    law = {}
    for text in itertools.product(range(table.vocabulary), repeat=tokens):
        mass = 1.0
        for end in range(tokens):
            exponent = np.exp(table.logits([1, 0, *text[:end]]))
            exponent[exponent < np.sort(exponent)[-(top_k or 0)]] = 0.0
            mass *= float(exponent[text[end]] / exponent.sum()) * check(list(text[: end + 1]))
        if mass > 0:
            law[text] = mass
    return law


def no_echo(new: list[int]) -> bool:
    """The black box: no token twice in a row, not even after the prompt's last 0, and nothing at all after 1."""
    return all(earlier not in (1, later) for earlier, later in itertools.pairwise([0, *new]))


@pytest.mark.parametrize(
    ("particles", "tokens", "resample", "top_k"), [(1, 3, False, None), (2, 2, False, 2), (2, 3, True, 2), (3, 2, True, 2)]
)
def test_weights_are_unbiased(particles: int, tokens: int, resample: bool, top_k: int | None) -> None:
    table = Table(3, seed=5)
    found = expectation(table, no_echo, particles, tokens, resample, top_k)
    wanted = by_definition(table, no_echo, tokens, top_k)
    assert found.keys() == wanted.keys() and sum(wanted.values()) < 0.99
    assert max(abs(found[text] - wanted[text]) for text in wanted) < 1e-12


def test_one_token_is_drawn_from_the_law_under_the_check() -> None:
    table = Table(4, seed=2)
    check: Check = lambda new: new[-1] in (1, 3)  # noqa: E731
    found, wanted = expectation(table, check, 1, 1, False), by_definition(table, check, 1)
    assert found == pytest.approx(wanted, abs=1e-12)


def test_a_particle_that_dies_is_replaced_and_keeps_its_noise() -> None:
    """Slots keep their keys on a fork, so two particles with one history part again."""
    table, dead_end = Table(3, seed=5), lambda new: new[0] == 0
    request = Request(prompts=((1, 0),), max_new_tokens=6, samples=16, sampling=Sampling(1.0), seed=2)
    engine = Engine(Run(request, {"target": table}, Parts(verify=Particles(dead_end, True))))
    for _ in engine.run():
        pass
    assert [row.key for row in engine.finished.values()] == sorted(engine.finished)
    texts = {tuple(row.tokens) for row in engine.finished.values()}
    assert {text[0] for text in texts} == {0} and len(texts) > 4
    assert {len(row.tokens) for row in engine.finished.values()} == {6}
