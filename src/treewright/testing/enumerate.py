"""The exact law of a row: every outcome of its randomness, played through the real engine.

A run asks `Randomness` for every decision. Here that object plays one outcome after another, depth first: each replay
follows the branches of the last one up to the deepest that has an outcome left. The probability of an outcome is that of
the uniforms that lead to it, so a uniform that is asked for twice (noise shared by drafter and verifier, say) counts as the
one number it is: it is kept as an interval, and a later question about it only cuts that interval further.

A replay must meet the same questions, so every replay starts from a copy of the same memory: memory of scope `model` that a
run changes is forgotten before the next one. Empty and warm memory are two cases of a law, not one.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from treewright.core.randomness import ACCEPT, Keyed, Randomness
from treewright.core.request import Request
from treewright.core.roles import Parts
from treewright.core.selection import Candidate
from treewright.core.session import Model
from treewright.core.trace import Step
from treewright.engine.loop import Engine, Run
from treewright.testing.reports import Coverage, LawBroken

Tokens = tuple[int, ...]
Piece = tuple[int, float, float]
"""An answer and the ends of the uniforms that give it."""

NEGLIGIBLE = 1e-15
"""Pieces narrower than this are rounding, not outcomes."""


@dataclass(slots=True)
class _Branch:
    question: tuple[Hashable, ...]
    pieces: list[Piece]
    at: int = 0


class Outcomes:
    """`Randomness` that plays all outcomes of one row's decisions; other rows ask `elsewhere`.

    Before each run call `begin`, after it read `probability` and call `advance`, which is False when all were played.
    """

    def __init__(self, row: Hashable, elsewhere: Randomness) -> None:
        self._row, self._elsewhere = row, elsewhere
        self._branches: list[_Branch] = []
        self.begin()

    def begin(self) -> None:
        """Starts the next outcome."""
        self._depth, self.probability = 0, 1.0
        self._known: dict[tuple[Hashable, ...], tuple[float, float]] = {}

    def advance(self) -> bool:
        """Moves to the next outcome; False if there is none."""
        if self._depth < len(self._branches):
            raise LawBroken(f"a replay asked {self._depth} of {len(self._branches)} known questions; {_OUTSIDE}")
        while self._branches and self._branches[-1].at + 1 == len(self._branches[-1].pieces):
            self._branches.pop()
        if self._branches:
            self._branches[-1].at += 1
        return bool(self._branches)

    def _plays(self, row: Hashable) -> bool:
        return row == self._row

    def index(self, weights: np.ndarray, row: Hashable, position: int, stream: int, trial: int = 0) -> int:
        if not self._plays(row):
            return self._elsewhere.index(weights, row, position, stream, trial)
        ends = np.cumsum(weights, dtype=np.float64)
        if not ends[-1] > 0:
            raise LawBroken(f"an index was drawn from weights {weights} at position {position}; they must have a positive sum")
        places = [0.0, *(ends / ends[-1]).tolist()]
        pieces = list(zip(range(len(ends)), places, places[1:], strict=False))
        return self._choose((row, position, stream, trial), pieces)

    def accept(self, probability: float, row: Hashable, position: int, trial: int = 0) -> bool:
        if not self._plays(row):
            return self._elsewhere.accept(probability, row, position, trial)
        pieces = [(1, 0.0, probability), (0, probability, 1.0)]
        return bool(self._choose((row, position, ACCEPT, trial), pieces))

    def uniform(self, row: Hashable, position: int, stream: int, trial: int = 0) -> float:
        if row != self._row:
            return self._elsewhere.uniform(row, position, stream, trial)
        raise LawBroken(f"continuous noise was asked for at position {position}; its outcomes cannot be enumerated")

    def _choose(self, question: tuple[Hashable, ...], pieces: list[Piece]) -> int:
        low, high = self._known.get(question, (0.0, 1.0))
        within = [(answer, max(low, start), min(high, end)) for answer, start, end in pieces]
        possible = [piece for piece in within if piece[2] - piece[1] > NEGLIGIBLE]
        chosen = possible[0]
        if len(possible) > 1:
            if self._depth == len(self._branches):
                self._branches.append(_Branch(question, possible))
            branch = self._branches[self._depth]
            if branch.question != question or branch.pieces != possible:
                raise LawBroken(f"a replay asked about {question} where it had asked about {branch.question}; {_OUTSIDE}")
            chosen = possible[branch.at]
            self._depth += 1
        self._known[question] = chosen[1:]
        self.probability *= (chosen[2] - chosen[1]) / (high - low)
        return chosen[0]


class PromptOutcomes(Outcomes):
    """Plays all outcomes of the decisions of all rows of one prompt, which see each other as particles do."""

    def __init__(self, prompt: int, elsewhere: Randomness) -> None:
        super().__init__(prompt, elsewhere)

    def _plays(self, row: Hashable) -> bool:
        return row[0] == self._row  # type: ignore[index]


_OUTSIDE = "a part takes chance from elsewhere than Randomness, or remembers the last run outside of its memory"


@dataclass(frozen=True, slots=True)
class Case:
    """A run to be enumerated: `row` is the prompt whose outcomes are played (samples of the request: 1).

    make_parts gives fresh parts for each replay. memories: what methods remember when a replay begins. columns: the
    engine's limit on rows times claims. engine: the loop itself, so that a broken one can be put in its place.
    """

    request: Request
    models: Mapping[str, Model]
    make_parts: Callable[[], Parts]
    row: int = 0
    memories: Mapping[Any, Any] = field(default_factory=dict)
    columns: int | None = None
    engine: type[Engine] = Engine
    elsewhere: Randomness = field(default_factory=lambda: Keyed(17))

    def play(self, randomness: Randomness) -> tuple[Tokens, list[Step]]:
        """One run, until the row has ended: the tokens it emitted and its rounds."""
        engine, key = self.open(randomness, copy.deepcopy(dict(self.memories))), (self.row, 0)
        rounds = engine.run()
        for _ in rounds:
            if key in engine.finished:
                break
        rounds.close()  # type: ignore[attr-defined]
        return tuple(engine.finished[key].tokens), engine.finished[key].steps

    def learn(self, randomness: Randomness, memories: dict[Any, Any]) -> list[Tokens]:
        """One run of all rows that writes what methods learn into `memories`; the tokens of every row."""
        engine = self.open(randomness, memories)
        for _ in engine.run():
            pass
        return [tuple(engine.finished[row, 0].tokens) for row in range(len(self.request.prompts))]

    def answers(self, randomness: Randomness) -> list[list[Candidate]]:
        """One run of all prompts: what each is answered with, in the order of the method's selector where it has one."""
        engine, found = self.open(randomness, copy.deepcopy(dict(self.memories))), []
        for _ in engine.run():
            pass
        for prompt in range(len(self.request.prompts)):
            ended = [row.to_candidate() for row in engine.ledger.ended(prompt)]
            if engine.selector is not None:
                ended = [ended[index] for index in engine.selector.select("", ended, {})]
            found.append(ended[: self.request.samples])
        return found

    def open(self, randomness: Randomness, memories: dict[Any, Any]) -> Engine:
        """The engine of one run, with fresh parts."""
        return self.engine(Run(self.request, self.models, self.make_parts(), randomness, memories, columns=self.columns))


def outcomes(case: Case, most: int = 20_000) -> Iterator[tuple[Tokens, float, list[Step]]]:
    """Tokens, probability and rounds of every outcome of the case's row. Cost: one run for each outcome.

    Raises LawBroken where a replay differs from the run it repeats, ValueError beyond `most` outcomes.
    """
    randomness = Outcomes((case.row, 0), case.elsewhere)
    for _ in range(most):
        randomness.begin()
        tokens, steps = case.play(randomness)
        yield tokens, randomness.probability, steps
        if not randomness.advance():
            return
    raise ValueError(f"the row has more than {most} outcomes; give fewer tokens, a smaller vocabulary or smaller drafts")


def exact_law(case: Case, most: int = 20_000, coverage: Coverage | None = None) -> dict[Tokens, float]:
    """The probability of every token sequence that the case's row can emit; counts what ran into `coverage`."""
    law: dict[Tokens, float] = {}
    for tokens, probability, steps in outcomes(case, most):
        law[tokens] = law.get(tokens, 0.0) + probability
        if coverage is not None:
            coverage.add(steps)
    return law


def total_variation(one: Mapping[Tokens, float], other: Mapping[Tokens, float]) -> float:
    """Half the sum of absolute differences of two laws, in [0, 1]."""
    return 0.5 * sum(abs(one.get(tokens, 0.0) - other.get(tokens, 0.0)) for tokens in {*one, *other})
