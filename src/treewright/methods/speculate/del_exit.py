"""DEL: early-exit drafting whose exit layer and length are learnt while decoding, from what every layer would have said.

Entezari Zarch et al. 2025, "DEL: Context-Aware Dynamic Exit Layer for Efficient Self-Speculative Decoding"
(https://arxiv.org/abs/2504.05598). A model drafts with its first E layers and checks with all (see layerskip). The checking
forward has the hidden states of every layer, so each exit's *shadow token*, the argmax of its answer, is known for each
claim. Counts of shadow tokens that equal the whole model's argmax, fading by `omega` a round, give each exit's acceptance
alpha_e. The next round takes the exit e and length g of the most tokens per layer run,

    (1 + alpha_e + ... + alpha_e^g) / (g e + L),

and drafts until a token's probability lies below the exit's threshold, half way between the mean probability of shadow
tokens that were right and of those that were wrong (the token is kept). A row's first round drafts one token with one layer.

Cost: one target call and up to `tokens` forwards of E layers a round, and one projection of all layers' states to logits for
each claim that is learnt from. Lossless for any model; worth its cost on models trained for early exit.

Beside the paper: claims are learnt from up to and including the first whose shadow token at the used exit is wrong, as in the
released code. That also counts the last 32 tokens of the prompt in the first round, whose layers are not kept here; the first
choice rests on the first round's one or two claims. As released, g only chooses the exit; `stop: "length"` drafts g tokens
instead of asking the threshold, none where g is 0. A threshold without right or without wrong shadow tokens stops nothing.
Rows of a batch learn and exit each on its own; a batched draft runs as many layers as the deepest of its exits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from treewright.core.answers import Answers
from treewright.core.claims import ABSENT
from treewright.core.errors import CapabilityError, require
from treewright.core.layers import LayerPlan
from treewright.core.roles import Outcome, Parts, Round
from treewright.core.session import Capabilities
from treewright.ops.softmax import softmax
from treewright.parts.propose.draft_model import DraftChain
from treewright.parts.propose.self_draft import ask_layers, own_probability
from treewright.parts.verify.rejection import Rejection

CARD = {
    "title": "DEL: Context-Aware Dynamic Exit Layer for Efficient Self-Speculative Decoding",
    "year": 2025,
    "link": "https://arxiv.org/abs/2504.05598",
    "card": 236,
    "aliases": ["DEL", "dynamic exit layer"],
    "roles": ["propose", "verify", "control", "observe"],
    "models": [],
    "needs": ["left_to_right", "tree", "layers", "exit_layers"],
    "claims": ["lossless"],
    "tables": {"tokens": 2},
}


@dataclass(frozen=True)
class Config:
    """
    tokens: drafts a round at most (gamma_max)
    omega: how much of what was counted stays from one round to the next
    stop: what ends a draft: "confidence", the learnt threshold, or "length", the length of the most tokens per layer
    """

    tokens: int = 18
    omega: float = 0.95
    stop: Literal["confidence", "length"] = "confidence"

    def __post_init__(self) -> None:
        require(self.tokens >= 1, "tokens", self.tokens, "an integer >= 1")
        require(0 <= self.omega <= 1, "omega", self.omega, "a number in [0, 1]")


def tokens_per_layer(alpha: np.ndarray, layers: int, lengths: int) -> np.ndarray:
    """Expected tokens for each layer run, [E, lengths], of drafting g = 0 .. lengths-1 tokens with the first e = 1 .. E layers of
    `layers`, where a draft of exit e is accepted with probability alpha[e-1]; -inf for exits whose alpha is not known (nan)."""
    power = alpha[:, None] ** np.arange(lengths)
    exits = np.arange(1, len(alpha) + 1)[:, None]
    value = np.cumsum(power, axis=1) / (np.arange(lengths) * exits + layers)
    return np.where(np.isnan(alpha)[:, None], -np.inf, value)


@dataclass(slots=True)
class ExitStatistics:
    """What a row has learnt. counts, sureness [2, E]: faded numbers of wrong and of right shadow tokens of exits 1 .. E, and
    sums of their probabilities. exit, length: chosen for the coming round, which is the first while `counts` is zero."""

    counts: np.ndarray
    sureness: np.ndarray
    exit: int = 1
    length: int = 1

    @staticmethod
    def of(exits: int) -> ExitStatistics:
        """Nothing learnt yet."""
        return ExitStatistics(np.zeros((2, exits)), np.zeros((2, exits)))

    @property
    def begun(self) -> bool:
        return bool(self.counts.any())

    def learn(self, right: np.ndarray, probability: np.ndarray, omega: float) -> None:
        """After a round: whether each exit's shadow token was right, bool [N, E], and its probability."""
        for kind, counted in enumerate((~right, right)):
            self.counts[kind] = omega * self.counts[kind] + counted.sum(axis=0)
            self.sureness[kind] = omega * self.sureness[kind] + np.where(counted, probability, 0).sum(axis=0)

    def choose(self, layers: int, most: int) -> None:
        """Sets the exit and the length of the most tokens per layer, lengths below `most`; the shallowest, shortest on ties."""
        if self.begun:
            with np.errstate(invalid="ignore"):
                alpha = self.counts[1] / self.counts.sum(axis=0)
            value = tokens_per_layer(alpha, layers, most)
            best, self.length = (int(place) for place in np.unravel_index(int(value.argmax()), value.shape))
            self.exit = best + 1

    @property
    def threshold(self) -> float:
        """The probability below which a draft of the chosen exit ends; nan where one of the two means is not known."""
        count, total = self.counts[:, self.exit - 1], self.sureness[:, self.exit - 1]
        return float((total / count).mean()) if count.all() else float("nan")


class DynamicExit:
    """Proposer, controller and observer around what the rows have learnt."""

    prompt_top = 0

    def __init__(self, config: Config) -> None:
        self._config = config
        self._chain = DraftChain(ask_layers(self.plans), config.tokens)

    def fits(self, has: Capabilities) -> None:
        """Raises CapabilityError where there is no layer to exit at."""
        if has.layers < 2:
            raise CapabilityError(
                f"del_exit leaves before the last layer and the model has {has.layers}; give one with 2 or more"
            )

    def _learnt(self, round: Round, row: int) -> ExitStatistics:
        return round.memories.row(round.keys[row], "del_exit", lambda: ExitStatistics.of(round.layers["target"] - 1))

    def plans(self, round: Round) -> Sequence[LayerPlan]:
        depth = round.layers["target"]
        return [LayerPlan.until(depth, self._learnt(round, row).exit) for row in range(round.rows)]

    def propose(self, round: Round) -> None:
        rows = [self._learnt(round, row) for row in range(round.rows)]
        for learnt in rows:
            learnt.choose(round.layers["target"], self._config.tokens)
        idle = np.array([self._config.stop == "length" and learnt.length == 0 for learnt in rows])
        if not idle.all():
            self._chain.propose(round)
            round.forest.token[idle, 1:] = ABSENT

    def claims(self, round: Round) -> int:
        return round.claims

    def more(self, round: Round, answers: Answers, parent: int, column: int) -> np.ndarray:
        return np.array([self._goes_on(round, answers, row, parent, column) for row in range(round.rows)])

    def _goes_on(self, round: Round, answers: Answers, row: int, parent: int, column: int) -> bool:
        learnt, token = self._learnt(round, row), int(round.forest.token[row, column])
        if token == ABSENT or not learnt.begun:
            return False
        if self._config.stop == "length":
            return int(round.forest.shape.depth[0, column]) < learnt.length
        return not own_probability(answers, row, parent, token) < learnt.threshold

    def read_prompts(self, round: Round, prompts: Sequence[Sequence[int]], top: np.ndarray) -> None:
        """The layers of prompts are not kept."""

    def observe(self, outcome: Outcome) -> None:
        round, answers = outcome.round, outcome.round.answers["target"]
        every = range(1, round.layers["target"] + 1)
        for row in range(round.rows):
            learnt = self._learnt(round, row)
            right: list[np.ndarray] = []
            probability: list[np.ndarray] = []
            for column in np.flatnonzero(round.forest.token[row] != ABSENT).tolist():
                logits = answers.at_layers(row, column, every)
                shadow = logits.argmax(axis=-1)
                right.append(shadow[:-1] == shadow[-1])
                probability.append(softmax(logits[:-1]).max(axis=-1))
                if not right[-1][learnt.exit - 1]:
                    break
            learnt.learn(np.stack(right), np.stack(probability), self._config.omega)


def parts(config: Config) -> Parts:
    method = DynamicExit(config)
    return Parts(
        propose=method,
        verify=Rejection(),
        control=method,
        observe=(method,),
        probabilities=True,
        layers=True,
        claims=config.tokens + 1,
        fits=(method.fits,),
    )
