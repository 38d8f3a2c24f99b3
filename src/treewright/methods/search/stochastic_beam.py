"""Stochastic beam search: n different token sequences, drawn without replacement from the law over whole texts, with weights.

Kool et al. 2019, "Stochastic Beams and Where to Find Them" (https://arxiv.org/abs/1903.06059). Give every text of log-probability
phi the key G = phi + Gumbel noise; the n largest keys are a draw without replacement, and its first text is a plain sample. A
beginning's key is the largest key among its texts, so a beam search that follows the largest keys finds them. With kappa
the (n + 1)-th key, a text is in the draw with probability q = 1 - exp(-exp(phi - kappa)), and sum over the draw of
p / q * f(text) is an unbiased estimate of the mean of f: `log_weight` is log p - log q, and answers come by falling key.
(For n = 1 that estimate has no finite variance; the text itself is a plain sample.)

Cost: one target call of n + 1 rows for each step, the last row being the threshold kappa.

Beside the paper: a key G is kept as the arrival time exp(-G) of a race, where a beginning of probability p runs with rate p. The
first child to arrive is drawn from the law and arrives with its parent, each further one after an exponential time whose
rate is what is left: the same joint law as n Gumbel numbers for a whole vocabulary that are then conditioned on their maximum,
with n + 1 draws and no cancellation. A text that ended rests in its row until the search is over, since larger keys may
still push it out. The law searched is that of `beam` (at temperature 0 the softmax of the logits). Where a constraint
leads into dead ends, fewer texts may be found; the threshold is then the first key that was ever given up, so weights stay
right for the texts that exist (one beyond the threshold is given only alone, with weight zero). A run that a budget
cuts off leaves beginnings, and their log_weight is log p.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from treewright.core.claims import ABSENT
from treewright.core.errors import require
from treewright.core.randomness import SEARCH
from treewright.core.roles import Completion, Parts, Round, TargetLaw, Verdict
from treewright.core.selection import Candidate, Scorer
from treewright.parts.search.beams import Child, die, drop, open_verdict, place, rows_by_prompt
from treewright.parts.search.hypotheses import log_law, room
from treewright.parts.select.ranking import AllEnd

CARD = {
    "title": "Stochastic Beams and Where to Find Them: The Gumbel-Top-k Trick for Sampling Sequences Without Replacement",
    "year": 2019,
    "link": "https://arxiv.org/abs/1903.06059",
    "card": None,
    "aliases": ["gumbel_beam", "sbs"],
    "roles": ["verify", "select"],
    "models": [],
    "needs": ["left_to_right"],
    "claims": ["without_replacement"],
}


@dataclass(frozen=True)
class Config:
    """
    beams: the most texts of one prompt that may be asked for
    """

    beams: int = 4

    def __post_init__(self) -> None:
        require(self.beams >= 1, "beams", self.beams, "an integer >= 1")


@dataclass(frozen=True, slots=True)
class Runner:
    """A child with its arrival time; `rests`: the text is whole, and its last token waits to be written."""

    arrival: float
    child: Child
    rests: bool


@dataclass(slots=True)
class Race:
    """The search for one prompt. by_slot: who runs in which slot. threshold: the first arrival that was given up."""

    by_slot: dict[int, Runner] = field(default_factory=dict)
    threshold: float = math.inf


class StochasticBeams(AllEnd):
    """Verifier and selector."""

    hypotheses = True

    def __init__(self) -> None:
        self._races: dict[int, Race] = {}

    def verify(self, round: Round, law: TargetLaw) -> Verdict:
        verdict = open_verdict(round.rows)
        for prompt, rows in rows_by_prompt(round.keys):
            if prompt not in self._races:
                rows = self._begin(round, verdict, prompt, rows)
            self._step(round, law, verdict, self._races[prompt], rows)
        return verdict

    def _begin(self, round: Round, verdict: Verdict, prompt: int, rows: list[int]) -> list[int]:
        """Sets off one runner with the whole law behind it; rows that the n texts do not need are given up."""
        key, position = round.keys[rows[0]], round.position(rows[0], 0)
        arrival = exponential(round.randomness.uniform(key, position - 1, SEARCH))
        self._races[prompt] = Race({key[1]: Runner(arrival, Child(rows[0], ABSENT, 0.0, 0.0), False)})
        drop(verdict, rows[round.request.samples + 1 :])
        return rows[: round.request.samples + 1]

    def _step(self, round: Round, law: TargetLaw, verdict: Verdict, race: Race, rows: list[int]) -> None:
        most, arrived = len(rows), list[Runner]()
        running = {row: race.by_slot[slot] for row in rows if (slot := round.keys[row][1]) in race.by_slot}
        for row, runner in sorted(running.items(), key=lambda entry: entry[1].arrival):
            if runner.rests:
                arrived.append(Runner(runner.arrival, Child(row, runner.child.token, 0.0, runner.child.total), True))
            else:
                arrived += self._children(round, law, row, runner, most)
        arrived.sort(key=lambda runner: runner.arrival)
        race.threshold = min([race.threshold, *(runner.arrival for runner in arrived[most:])])
        arrived = arrived[:most]
        if not arrived:
            die(verdict, rows, min(running, key=lambda row: running[row].arrival))
        elif all(runner.rests for runner in arrived):
            self._finish(round, verdict, arrived, race.threshold)
            drop(verdict, rows)
        else:
            self._go_on(round, verdict, race, rows, running, arrived)

    def _children(self, round: Round, law: TargetLaw, row: int, runner: Runner, most: int) -> list[Runner]:
        """The first `most` + 1 children of a runner to arrive: one more than can be kept, so that what is given up is known."""
        scores, key, position = log_law(law, row), round.keys[row], round.position(row, 0)
        left, arrival, children = np.exp(scores), runner.arrival, list[Runner]()
        last = room(round, row) == 1
        for trial in range(most + 1):
            mass = float(left.sum())
            if trial > 0:
                rate = math.exp(runner.child.total) * mass
                wait = exponential(round.randomness.uniform(key, position, SEARCH, 2 * trial + 1))
                arrival = arrival + wait / rate if rate > 0 else math.inf
            if not mass > 0 or arrival == math.inf:
                break
            token = round.randomness.index(left, key, position, SEARCH, 2 * trial)
            left[token] = 0.0
            child = Child(row, token, float(scores[token]), runner.child.total + float(scores[token]))
            children.append(Runner(arrival, child, last or round.would_end(row, [token])))
        return children

    def _go_on(
        self, round: Round, verdict: Verdict, race: Race, rows: list[int], running: Mapping[int, Runner], arrived: list[Runner]
    ) -> None:
        """Gives every runner a slot. One that rests keeps its row's text as it is, its last token left out."""
        written = [
            Child(c.row, *((ABSENT, 0.0) if runner.rests else (c.token, c.log_probability)), c.total)
            for runner in arrived for c in (runner.child,)
        ]  # fmt: skip
        slots = place(verdict, rows, written, idle=True)
        race.by_slot = {round.keys[slot][1]: runner for slot, runner in zip(slots, arrived, strict=True)}

    def _finish(self, round: Round, verdict: Verdict, arrived: list[Runner], threshold: float) -> None:
        """The n first texts are the draw, and the next arrival is its threshold."""
        wanted = round.request.samples
        threshold = min([threshold, *(runner.arrival for runner in arrived[wanted : wanted + 1])])
        for runner in arrived[:wanted]:
            child = runner.child
            weight = log_weight(child.total, threshold) if runner.arrival < threshold else -math.inf
            verdict.completed.append(Completion(child.row, [], child.token, weight - round.log_weight[child.row]))

    def select(self, prompt: str, candidates: Sequence[Candidate], scorers: Mapping[str, Scorer]) -> list[int]:
        """All that weigh something, in the order they arrived in; the first where none does."""
        return [index for index, candidate in enumerate(candidates) if candidate.log_weight > -math.inf] or [0]


def exponential(uniform: float) -> float:
    """A number in [0, 1) as an exponential time of rate 1."""
    return -math.log1p(-uniform)


def log_weight(log_probability: float, threshold: float) -> float:
    """log p - log q, where q = 1 - exp(-p * threshold) is the chance to arrive before the threshold (a time)."""
    if threshold == math.inf:
        return log_probability
    if threshold == 0:
        return math.inf
    expected = log_probability + math.log(threshold)
    # Below exp(-30) the chance is its own first-order term to the last bit.
    return log_probability - (math.log(-math.expm1(-math.exp(expected))) if expected > -30 else expected)


def parts(config: Config) -> Parts:
    search = StochasticBeams()
    return Parts(
        verify=search, select=search, candidates=config.beams, slots=config.beams + 1, bonus=True, together=True,
        whole_laws=True,
    )  # fmt: skip
