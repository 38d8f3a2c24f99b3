"""The law of methods that choose among samples: candidates are plain samples, and the choice is a function of them alone."""

from __future__ import annotations

import copy
import itertools
import zlib
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, get_args

import numpy as np

from treewright.core.errors import InputError
from treewright.core.randomness import Keyed, Randomness
from treewright.core.recipe import Recipe
from treewright.core.request import Sampling
from treewright.core.result import FinishReason
from treewright.core.roles import Parts
from treewright.core.selection import Candidate, Scorer, Selector
from treewright.engine.loop import Engine, Run
from treewright.parts.verify.sample_then_match import SampleThenMatch
from treewright.testing.bench import CLAIMS, PROMPTS, SETTINGS, Bench, Setting, parts_of
from treewright.testing.definition import plain_law
from treewright.testing.drafters import TreeDrafter
from treewright.testing.enumerate import Case, Outcomes, total_variation
from treewright.testing.reports import CaseReport, Coverage, LawBroken, LawReport

TOLERANCE = 1e-9
SAMPLES = 2
"""Candidates whose joint law is enumerated."""

SEEDS = 12
LONG = Setting("keyed", Sampling(1.0), tokens=8, vocabulary=4, stop_ids=(3,), fenced=False)


def selects(
    method: str,
    options: Mapping[str, Any] | None = None,
    *,
    scorers: Mapping[str, Scorer] | None = None,
    alter: Callable[[Parts], Parts] = lambda parts: parts,
    seed: int = 1,
) -> LawReport:
    """The method chooses among independent plain samples, and by nothing but what they are.

    On exact tables, through the engine, over a ragged batch: (1) the joint law of two candidates is the product of the laws of
    plain decoding, within total variation 1e-9, with a constraint, penalties, warpers and stops; (2) rows that are given up
    early do not change what is chosen, nor do drafts, nor rows that wait for others; (3) the choice is a list of different
    candidates, the same whatever was chosen before and in whatever order they stand; (4) candidates that are equal in all but
    their sample are ranked by it, the lowest first; (5) a finished candidate goes before what a budget, a cancellation or a dead
    end cut off. It does not say that the chosen text has the law of plain decoding: it has not.

    scorers: what judges texts, by role; where the method asks for one that is not given, a function of the text stands in.
    alter: changes the method's parts before each run. Raises LawBroken; InputError for a method that takes no seat of selection,
    CapabilityError where exact tables lack what the method needs. Cost: some hundred short runs, about a second.
    """
    make, roles = parts_of(method, options)
    if make().select is None:
        raise InputError(f"method '{method}' chooses among nothing, so there is no selection to test; leave this law out")
    judges = dict.fromkeys(Recipe.of(method, options).scorers(), _StandIn()) | dict(scorers or {})
    cases = [_candidates(method, lambda: alter(make()), roles, setting, seed) for setting in SETTINGS[:2]]
    law = _Choice(method, lambda: alter(make()), roles, judges, seed)
    law.giving_up()
    law.own_order()
    law.ties()
    law.cut_off()
    return LawReport("selects", method, TOLERANCE, [*cases, CaseReport("choice", 0.0, law.coverage)])


def spell(ids: list[int]) -> str:
    """The text of a table's tokens: their numbers."""
    return " ".join(map(str, ids))


class _StandIn:
    """A judge that gives few different scores, so that some of them tie."""

    def score(self, prompt: str, texts: Sequence[str]) -> list[float]:
        return [float(zlib.crc32(f"{prompt}|{text}".encode()) % 5) for text in texts]


class _Patient:
    """A selector that gives up no row."""

    hypotheses = False

    def __init__(self, selector: Selector) -> None:
        self._selector = selector

    def enough(self, ended: Sequence[Candidate], running: int) -> bool:
        return False

    def select(self, prompt: str, candidates: Sequence[Candidate], scorers: Mapping[str, Scorer]) -> list[int]:
        return self._selector.select(prompt, candidates, scorers)


class _Together:
    """Plays all outcomes of all samples of one prompt: `Outcomes` knows one row, so a sample becomes part of the position."""

    def __init__(self, prompt: int, outcomes: Outcomes, elsewhere: Randomness) -> None:
        self._prompt, self._outcomes, self._elsewhere = prompt, outcomes, elsewhere

    def index(self, weights: np.ndarray, row: Hashable, position: int, stream: int, trial: int = 0) -> int:
        sample = self._sample(row)
        if sample is None:
            return self._elsewhere.index(weights, row, position, stream, trial)
        return self._outcomes.index(weights, self._prompt, position * SAMPLES + sample, stream, trial)

    def accept(self, probability: float, row: Hashable, position: int, trial: int = 0) -> bool:
        sample = self._sample(row)
        if sample is None:
            return self._elsewhere.accept(probability, row, position, trial)
        return self._outcomes.accept(probability, self._prompt, position * SAMPLES + sample, trial)

    def uniform(self, row: Hashable, position: int, stream: int, trial: int = 0) -> float:
        sample = self._sample(row)
        if sample is None:
            return self._elsewhere.uniform(row, position, stream, trial)
        return self._outcomes.uniform(self._prompt, position * SAMPLES + sample, stream, trial)

    def _sample(self, row: Any) -> int | None:
        """Which sample of the prompt a row is; None for a row of another prompt."""
        prompt, sample = row
        return int(sample) if prompt == self._prompt else None


def _run(case: Case, parts: Parts, randomness: Randomness, rows: int = 64) -> Engine:
    """One run of all rows to the end."""
    request, memories = replace(case.request, batch_rows=rows), copy.deepcopy(dict(case.memories))
    engine = case.engine(Run(request, case.models, parts, randomness, memories, spell, columns=case.columns))
    for _ in engine.run():
        pass
    return engine


def joint_outcomes(case: Case, patient: bool = True) -> Iterator[tuple[Engine, float]]:
    """Every outcome of the first two candidates of the case's prompt together: the engine when all is over, and the probability.
    patient: no row is given up. Cost: one run for each outcome."""
    outcomes, more = Outcomes(case.row, case.elsewhere), True
    while more:
        outcomes.begin()
        parts = case.make_parts()
        selector: Any = _Patient(parts.select) if patient and parts.select is not None else parts.select
        engine = _run(case, replace(parts, select=selector, candidates=SAMPLES), _Together(case.row, outcomes, case.elsewhere))
        yield engine, outcomes.probability
        more = outcomes.advance()


def pool_of(case: Case, engine: Engine, prompt: int) -> list[Candidate]:
    """The candidates of one prompt that a run has left."""
    rows = [row for _, row in sorted(engine.finished.items()) if row.prompt == prompt]
    return [row.to_candidate(row.spell(spell, case.request)) for row in rows]


def _candidates(method: str, make: Callable[[], Parts], roles: tuple[str, ...], setting: Setting, seed: int) -> CaseReport:
    """The joint law of the first candidates of one prompt against the product of plain laws."""
    case = Bench(make, roles).case(replace(setting, tokens=2), seed)
    coverage = Coverage()
    law: dict[Any, float] = {}
    for engine, probability in joint_outcomes(case):
        texts = tuple(tuple(engine.finished[case.row, sample].tokens) for sample in range(SAMPLES))
        law[texts] = law.get(texts, 0.0) + probability
        coverage.add(engine.finished[case.row, 0].steps)
    alone = plain_law(case)
    pairs = itertools.product(alone.items(), repeat=SAMPLES)
    expected: dict[Any, float] = {(one, other): p * q for (one, p), (other, q) in pairs}
    distance = total_variation(law, expected)
    if not distance <= TOLERANCE:
        raise LawBroken(
            f"{method}, {setting.name}: two candidates have a joint law at total variation {distance:.3g} from that of "
            f"independent plain samples over {coverage.outcomes} outcomes (allowed {TOLERANCE:g})"
        )
    return CaseReport(f"candidates, {setting.name}", distance, coverage)


class _Choice:
    """Checks of what is chosen, over candidates that were sampled by `SEEDS` seeds."""

    def __init__(
        self, method: str, make: Callable[[], Parts], roles: tuple[str, ...], judges: Mapping[str, Scorer], seed: int
    ) -> None:
        self._method, self._make, self._judges = method, make, judges
        self._case = Bench(make, tuple(sorted({*roles, "draft"}))).case(LONG, seed)
        self._pools: list[list[Candidate]] = []
        self.coverage = Coverage()

    def _chosen(self, parts: Parts, seed: int, rows: int = 64) -> list[tuple[int, ...]]:
        """The text chosen for each prompt in one run."""
        engine = _run(self._case, parts, Keyed(seed), rows)
        return [self._first(parts, pool) for pool in self._collect(engine)]

    def _collect(self, engine: Engine) -> list[list[Candidate]]:
        return [pool_of(self._case, engine, prompt) for prompt in range(len(self._case.request.prompts))]

    def _first(self, parts: Parts, pool: Sequence[Candidate]) -> tuple[int, ...]:
        return tuple(pool[self._order(parts, pool)[0]].tokens)

    def _order(self, parts: Parts, pool: Sequence[Candidate]) -> list[int]:
        order = parts.select.select("a prompt", pool, self._judges)  # type: ignore[union-attr]
        if not order or len(set(order)) < len(order) or not set(order) <= set(range(len(pool))):
            raise LawBroken(f"{self._method} chose {order} of {len(pool)} candidates; it must name at least one, none twice")
        return order

    def _samples(self, pool: Sequence[Candidate]) -> list[int]:
        """The samples in the order that fresh parts put them in."""
        return [pool[index].sample for index in self._order(self._case.make_parts(), pool)]

    def giving_up(self) -> None:
        """(2): early ends, drafts and waiting rows decide nothing."""
        for seed in range(SEEDS):
            parts = self._case.make_parts()
            engine = _run(self._case, replace(parts, select=_Patient(parts.select)), Keyed(seed))  # type: ignore[arg-type]
            pools = self._collect(engine)
            self._pools += pools
            self.coverage.add(engine.finished[self._case.row, 0].steps)
            expected = [self._first(parts, pool) for pool in pools]
            ways = {"all rows at once": self._chosen(self._case.make_parts(), seed), "drafts": self._drafted(seed)}
            ways["one row at a time"] = self._chosen(self._case.make_parts(), seed, rows=1)
            for way, found in ways.items():
                if found != expected:
                    prompt = next(p for p in range(len(PROMPTS)) if found[p] != expected[p])
                    raise LawBroken(
                        f"{self._method}, seed {seed}, {way}: for prompt {prompt} the tokens {found[prompt]} were chosen, and "
                        f"{expected[prompt]} where no row is given up"
                    )

    def _drafted(self, seed: int) -> list[tuple[int, ...]]:
        parts = self._case.make_parts()
        if parts.propose is None:
            drafts = Parts(propose=TreeDrafter("delta", (1, 1)), verify=SampleThenMatch(), claims=CLAIMS)
            parts = drafts.join(replace(parts, verify=None))
        return self._chosen(parts, seed)

    def own_order(self) -> None:
        """(3): what was chosen before, and the order of the list, do not matter."""
        parts = self._case.make_parts()
        for pool in self._pools:
            expected, backwards = self._samples(pool), list(reversed(pool))
            again = [pool[index].sample for index in self._order(parts, pool)]
            turned = [backwards[index].sample for index in self._order(parts, backwards)]
            if again != expected or turned != expected:
                raise LawBroken(
                    f"{self._method} ranked samples {expected}; after other choices {again}, from a list turned round {turned}"
                )

    def ties(self) -> None:
        """(4): equal candidates stand in the order of their samples."""
        for one in self._pools[0]:
            pool = [replace(one, sample=sample) for sample in (2, 0, 3, 1)]
            found = self._samples(pool)
            if found != sorted(found) or found[0] != 0:
                raise LawBroken(f"{self._method} ranked four equal candidates {found}; a tie goes to the lowest sample")

    def cut_off(self) -> None:
        """(5): what was cut off comes after what has finished."""
        reasons = [reason for reason in get_args(FinishReason) if not replace(self._pools[0][0], finish_reason=reason).finished]
        for pool, reason in itertools.product(self._pools[: len(PROMPTS)], reasons):
            for kept in range(len(pool)):
                mixed = [one if place == kept else replace(one, finish_reason=reason) for place, one in enumerate(pool)]
                if self._samples(mixed)[0] != mixed[kept].sample:
                    raise LawBroken(f"{self._method} chose a candidate that ended by '{reason}' before the one that has finished")
