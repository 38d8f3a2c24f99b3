"""Best-first beam search: beam search's answer, found by extending the most probable beginning first, whatever its length.

Meister et al. 2020, "Best-First Beam Search" (https://arxiv.org/abs/2007.03909). A log-probability never grows with the length,
so a priority queue hands out the beginnings of each length in falling order, just as beam search ranks them: of each
length the first `beams` that do not end are its beams, and one that ends counts where it is among the first `beams` of its
length. What beam search would have pruned is never extended, and the search stops as soon as nothing in the queue can beat
the n answers asked for. It equals `beam` with early_stopping "never" and the same length_penalty, ties aside.

Cost: one target call for each beginning that is extended, and prompts of a batch share the call. That is far fewer evaluated
beginnings than beam search has for one answer that ends early, hardly fewer for all `beams` answers, and almost as many where
texts run on to the length limit, for then every shorter beginning is more probable than the whole text. The calls come one
after another, where beam search asks for all beams at once, so on a machine with room for a few more rows in a call beam
search is faster. This pays where the work itself is the price: batches of prompts that fill the machine, and texts that end.

Beside the paper: beginnings are claims of one forest that stay alive within one round, not rows, because an old beginning may
be taken up at any time; their keys and values are never copied, but up to beams x max_new_tokens of them are kept, so it is
made for texts of up to a few hundred tokens. Endings are those of transformers' beam search: a hypothesis that ended leaves
its place to the next beam, where the paper's keeps it. For a length penalty above 0 the bound is the best score that a
beginning could have at the greatest length, as in the paper's section on scores that are not monotone. All of the search is
one round, so stops and budgets of model calls and seconds are looked at inside it. Temperature: as for `beam`.
"""

from __future__ import annotations

import heapq
from collections import Counter
from dataclasses import dataclass

import numpy as np

from treewright.core.claims import ABSENT
from treewright.core.errors import require
from treewright.core.roles import Completion, Parts, Round, TargetLaw, Verdict
from treewright.parts.search.hypotheses import BestScore, descending, log_law, normalised, room

CARD = {
    "title": "Best-First Beam Search",
    "year": 2020,
    "link": "https://arxiv.org/abs/2007.03909",
    "card": 248,
    "aliases": ["bfbs"],
    "roles": ["verify", "select"],
    "models": [],
    "needs": ["left_to_right", "tree"],
    "claims": ["equals_beam"],
}


@dataclass(frozen=True)
class Config:
    """
    beams: beginnings of each length that may be extended, as many as the beam search has that this equals
    length_penalty: exponent of the length that a log-probability is divided by, at least 0; 0 stops earliest
    """

    beams: int = 4
    length_penalty: float = 1.0

    def __post_init__(self) -> None:
        require(self.beams >= 1, "beams", self.beams, "an integer >= 1")
        require(self.length_penalty >= 0, "length_penalty", self.length_penalty, "a number >= 0")


@dataclass(order=True, frozen=True, slots=True)
class Beginning:
    """An entry of the queue: the claim in column `parent` continued by `token`. The first two fields are its order."""

    cost: float
    number: int
    parent: int
    token: int
    depth: int
    ends: bool

    @property
    def log_probability(self) -> float:
        return -self.cost


class Queue:
    """The search for one row: what waits, what was extended, what ended."""

    def __init__(self, round: Round, row: int, config: Config) -> None:
        self._round, self._row, self._config = round, row, config
        self._room, self._wanted = room(round, row), min(round.request.samples, config.beams)
        self._waiting: list[Beginning] = []
        self._pushed = 0
        self._seen: Counter[int] = Counter()
        self._beams: Counter[int] = Counter()
        self.extended: dict[int, Beginning] = {0: Beginning(0.0, 0, -1, ABSENT, 0, False)}
        self.hypotheses: list[Beginning] = []
        self._scores: list[float] = []

    def extend(self, law: TargetLaw, column: int) -> None:
        """Puts the children of a claim that was scored into the queue: as many as could be beams, and what ends before."""
        parent, beams = self.extended[column], 0
        scores = parent.log_probability + log_law(law, self._row, column)
        path = self._round.forest.path_tokens(self._row, column)
        for token in descending(scores, self._config.beams + len(self._round.request.ends)):
            ends = parent.depth + 1 == self._room or self._round.would_end(self._row, [*path, token])
            self._pushed += 1
            child = Beginning(-float(scores[token]), self._pushed, column, token, parent.depth + 1, ends)
            heapq.heappush(self._waiting, child)
            beams += not child.ends or child.depth == self._room
            if beams == self._config.beams:
                return

    def next(self) -> Beginning | None:
        """The next beginning that is a beam, None when the search is over."""
        while self._waiting and not self._over():
            first = heapq.heappop(self._waiting)
            rank = self._seen[first.depth]
            self._seen[first.depth] += 1
            if first.ends and rank < self._config.beams:
                self.hypotheses.append(first)
                self._scores.append(normalised(first.log_probability, first.depth, self._config.length_penalty))
            elif not first.ends and self._beams[first.depth] < self._config.beams:
                self._beams[first.depth] += 1
                return first
        return None

    def _over(self) -> bool:
        """Whether no beginning in the queue, at whatever length it ends, can beat the answers that are wanted."""
        if len(self._scores) < self._wanted:
            return False
        best = normalised(self._waiting[0].log_probability, self._room, self._config.length_penalty)
        return best <= sorted(self._scores, reverse=True)[self._wanted - 1]

    def deepest(self) -> int:
        """The column of the longest beginning that was extended, the most probable of those."""
        return max(self.extended, key=lambda column: (self.extended[column].depth, self.extended[column].log_probability))


class BestFirst(BestScore):
    """Verifier and selector: it grows the forest of the round by one claim a row and asks again, until no row needs more."""

    def __init__(self, config: Config) -> None:
        super().__init__(config.length_penalty, config.beams)
        self._config = config

    def verify(self, round: Round, law: TargetLaw) -> Verdict:
        queues = [Queue(round, row, self._config) for row in range(round.rows)]
        asked, spent = dict.fromkeys(range(round.rows), 0), False
        while asked and not spent:
            for row, column in asked.items():
                queues[row].extend(law, column)
            asked = self._grow(round, {row: chosen for row in asked if (chosen := queues[row].next()) is not None}, queues)
            spent = bool(asked) and not round.ask()
        return self._verdict(round, queues, set(asked))

    def _grow(self, round: Round, chosen: dict[int, Beginning], queues: list[Queue]) -> dict[int, int]:
        """Adds one column to the forest; the column by row of what is to be scored in it."""
        if not chosen:
            return {}
        parents, tokens = np.zeros((round.rows, 1), np.int64), np.full((round.rows, 1), ABSENT)
        for row, beginning in chosen.items():
            parents[row], tokens[row] = beginning.parent, beginning.token
        column = round.forest.grow(parents, tokens)[0]
        for row, beginning in chosen.items():
            queues[row].extended[column] = beginning
        return dict.fromkeys(chosen, column)

    def _verdict(self, round: Round, queues: list[Queue], cut: set[int]) -> Verdict:
        """Hypotheses become candidates. Rows that a budget cut off, and dead ends, keep the longest beginning they had."""
        verdict = Verdict([], [-1] * round.rows, log_weight=[], finished=[], dropped=[])
        for row, queue in enumerate(queues):
            for found in queue.hypotheses:
                path = round.forest.shape.path(row, found.parent)
                verdict.completed.append(Completion(row, path, found.token, found.log_probability))
            dead = not queue.hypotheses and row not in cut
            best = queue.deepest() if dead or row in cut else 0
            path = round.forest.shape.path(row, best)
            steps = np.diff([queue.extended[column].log_probability for column in (0, *path)]).tolist()
            verdict.paths.append(path)
            verdict.log_weight.append([*steps, -np.inf] if dead else steps)  # type: ignore[union-attr]
            verdict.finished.append(dead)  # type: ignore[union-attr]
            verdict.dropped.append(not dead and row not in cut)  # type: ignore[union-attr]
        return verdict


def parts(config: Config) -> Parts:
    search = BestFirst(config)
    return Parts(
        verify=search, select=search, claims=1, claims_per_token=config.beams, candidates=config.beams, slots=1, bonus=False,
        whole_laws=True,
    )  # fmt: skip
