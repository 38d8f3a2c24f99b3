"""Auto: one token tree out of everything that is known without a draft model, while drafting pays.

Ours, after Token Recycling (Luo et al. 2024, https://arxiv.org/abs/2408.08696) and prompt lookup. A claim's children are what
the target itself last predicted after the last three, two and one tokens (Token Recycling with longer contexts) and what
followed in the row's own text the last time its end occurred (prompt lookup).
How often a child of each kind is the one that comes is counted as the text is written, for each row, with all rows of the model
as its prior. A kind is the length of the context or of the copy, and the share that the target gave the token when it predicted
it. So a claim has a chance, and the tree takes the claim with the largest next, until none has a chance worth naming.
What a round with claims costs is learned by comparing it with rounds without that lay near it: where the trees of the whole batch
do not promise more tokens for their cost than a round without claims, there are none, and that is plain decoding. Looking and
learning cost as well: where rounds brought less than all they cost, whole rounds go by without either, ever more of them; a text
that begins to copy itself ends that. So a text that only repeats itself gets long chains, code gets wide trees, noise nothing.
(Choosing the number of claims from the costs as well was tried and lost to a fixed number, docs/log.md.)

Cost: one target call a round, no other model; building 23 claims and learning from them takes about 0.1 ms each, in loops that
numba compiles once for each installation, at the first use (some seconds). Lossless: greedy walk at temperature 0,
sample-then-match above it. Counts, costs and predictions stay with the model from one generation to the next.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from treewright.core.errors import require
from treewright.core.roles import Outcome, Parts, Round
from treewright.ops.largest import largest
from treewright.parts.control.cost import RoundCost
from treewright.parts.control.rest import Rest
from treewright.parts.propose.guesses import Guesser, Writing, share_kinds
from treewright.parts.verify.sample_then_match import SampleThenMatch

CARD = {
    "title": "Treewright's own: one tree of drafts while drafting pays, after Token Recycling and prompt lookup",
    "year": 2026,
    "link": "https://arxiv.org/abs/2408.08696",
    "card": None,
    "aliases": ["automatic"],
    "roles": ["propose", "verify", "observe"],
    "models": [],
    "needs": ["left_to_right", "tree"],
    "claims": ["lossless"],
}

FLOOR = 0.004
"""A claim of a smaller chance is never worth a column."""
AWAKE = 4
"""The match of a copy that ends a rest."""


@dataclass(frozen=True)
class Config:
    """
    nodes: the most claims a round for each row; choose it from `treewright bench verify-cost`
    k: predictions kept for each context
    adapt: leave out claims of too small a chance, and all of them where they do not pay; False takes `nodes`, whatever they cost
    """

    nodes: int = 23
    k: int = 8
    adapt: bool = True

    def __post_init__(self) -> None:
        require(1 <= self.nodes <= 63, "nodes", self.nodes, "an integer from 1 to 63")
        require(1 <= self.k <= 8, "k", self.k, "an integer from 1 to 8")


class Auto:
    """Proposer and observer. What it learns about all texts is kept with the model, what it learns about one with its row."""

    def __init__(self, config: Config) -> None:
        self._config, self.prompt_top = config, config.k
        self._rest: Rest | None = None
        self._resting, self._looked = False, 0.0

    def _guesser(self, round: Round) -> Guesser:
        key = ("auto", round.vocabulary, round.request.sampling.temperature)
        return round.memories.model(key, lambda: Guesser(round.vocabulary))

    @staticmethod
    def _cost(round: Round) -> RoundCost:
        return round.memories.model(("auto", "cost", round.rows), lambda: RoundCost(round.rows))

    def _writing(self, round: Round, row: int, new: int = 0) -> Writing:
        """What is remembered of a row's text but for its `new` last tokens; what a rest passed over is caught up with."""
        text = round.text.of(row)
        text = text[: len(text) - new]
        writing = round.memories.row(round.keys[row], "auto", lambda: Writing(round.vocabulary, text))
        if writing.length < len(text):
            writing.extend(text[writing.length :])
        return writing

    def propose(self, round: Round) -> None:
        self._looked, self._resting = 0.0, False
        most, cost = min(self._config.nodes, round.claims - 1), self._cost(round)
        if most < 1 or (self._config.adapt and self._passes(round, cost)):
            return
        begun, guesser, deepest = time.perf_counter(), self._guesser(round), round.deepest.tolist()
        worth = FLOOR if self._config.adapt else 0.0
        trees = guesser.trees([self._writing(round, row) for row in range(round.rows)], most, deepest, worth)
        if trees.columns > 1 and (not self._config.adapt or cost.pays(trees.columns, trees.promised)):
            trees.token[:, 0] = round.forest.token[:, 0]
            round.forest.replace(trees.shape, trees.token[:, : trees.columns])
        else:
            self._looked = time.perf_counter() - begun

    def _passes(self, round: Round, cost: RoundCost) -> bool:
        """Whether a round goes without claims before anything is drafted: while it is not known what such a round costs, and for
        the longer, the more often looking lost, unless a text has begun to copy itself."""
        if self._rest is None:
            self._rest = round.memories.model(("auto", "rest", round.request.sampling.temperature), Rest)
            self._rest.begin()
        if cost.plain_is_due:
            return True
        listens = self._rest.listens
        self._resting = self._rest.take(listens and any(self._writing(round, row).match >= AWAKE for row in range(round.rows)))
        return self._resting

    def read_prompts(self, round: Round, prompts: Sequence[Sequence[int]], top: np.ndarray) -> None:
        guesser = self._guesser(round)
        for prompt, predicted in zip(prompts, top, strict=True):
            guesser.successors.read(np.array(prompt, np.int64), predicted[: len(prompt) - 1])

    def observe(self, outcome: Outcome) -> None:
        round, begun = outcome.round, time.perf_counter()
        own = round.proposed_by is self
        if own:
            # A round that looked for drafts and took none would have been shorter without looking.
            self._cost(round).update(round.forest.columns, outcome.seconds - self._looked)
        if self._resting and self._rest is not None and self._rest.deep:
            return
        self._learn(outcome)
        if own and self._rest is not None and not self._resting:
            self._rest.judge(self._gain(outcome, time.perf_counter() - begun), round.rows)

    def _learn(self, outcome: Outcome) -> None:
        round, guesser = outcome.round, self._guesser(outcome.round)
        ids, values = largest(round.answers["target"].logits, self._config.k)
        kinds = share_kinds(values)
        parent = round.forest.shape.parent
        for row, emitted in enumerate(outcome.emitted):
            writing = self._writing(round, row, len(emitted))
            above = parent[0 if round.forest.shape.shared else row]
            guesser.observe(writing, emitted, round.forest.token[row], above, ids[row], kinds[row])

    def _gain(self, outcome: Outcome, learning: float) -> float:
        """The tokens for each row that a round brought beyond those of rounds of one claim in its time, that of looking and
        learning included. Where the clock must decide nothing, these are free."""
        cost, rows = self._cost(outcome.round), len(outcome.emitted)
        alone = cost.alone if outcome.seconds > 0 else 0.0
        beside = (self._looked + learning) / alone if alone else 0.0
        return sum(map(len, outcome.emitted)) / rows - cost.at(outcome.round.forest.columns) - beside


def parts(config: Config) -> Parts:
    auto = Auto(config)
    return Parts(propose=auto, verify=SampleThenMatch(), observe=(auto,), claims=config.nodes + 1)
