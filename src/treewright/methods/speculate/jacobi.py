"""Jacobi decoding: guess a block, let the model correct all of it at once, keep the part that has converged.

Santilli et al. 2023, "Accelerating Transformer Inference for Translation via Parallel Decoding"
(https://arxiv.org/abs/2305.10427). The predictions after a wrong guess become the next guess. As claims: a chain; the
converged prefix is what a greedy walk accepts, so every round fixes at least one token and no extra forward is needed to
see convergence (the released code waits for two equal iterates).

Cost: one target call a round, at most one round for each token. Lossless. Above temperature 0 guesses are argmaxes and the
walk is sample-then-match, so it stays exact but accepts less. The block moves on with the text (Gauss-Seidel-Jacobi); the
target length that the released Jacobi mode needs is never asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from treewright.core.claims import ABSENT
from treewright.core.errors import require
from treewright.core.roles import Outcome, Parts, Round
from treewright.ops.largest import tops
from treewright.parts.verify.sample_then_match import SampleThenMatch

CARD = {
    "title": "Accelerating Transformer Inference for Translation via Parallel Decoding",
    "year": 2023,
    "link": "https://arxiv.org/abs/2305.10427",
    "card": 148,
    "aliases": ["parallel decoding", "GS-Jacobi", "HGJ"],
    "roles": ["propose", "verify", "observe"],
    "models": [],
    "needs": ["left_to_right", "tree"],
    "claims": ["lossless"],
}


@dataclass(frozen=True)
class Config:
    """
    block: guesses a round
    """

    block: int = 3

    def __post_init__(self) -> None:
        require(self.block >= 1, "block", self.block, "an integer >= 1")


class Jacobi:
    """Keeps each row's guess for the tokens that follow its text; a new or moved row starts from its last token, and so does
    a row whose round was drafted by somebody else."""

    prompt_top = 0

    def __init__(self, config: Config) -> None:
        self._config = config
        self._guess: dict[tuple[int, int], np.ndarray] = {}

    def propose(self, round: Round) -> None:
        width = min(self._config.block, round.claims - 1)
        if width < 1:
            return
        token = np.repeat(round.forest.token[:, :1], width, axis=1)
        for row, key in enumerate(round.keys):
            guess = self._guess.get(key, token[row, :0])[:width]
            token[row, : len(guess)] = guess
        round.forest.grow(range(width), token)

    def read_prompts(self, round: Round, prompts: Sequence[Sequence[int]], top: np.ndarray) -> None:
        """Prompts say nothing about the tokens after them."""

    def observe(self, outcome: Outcome) -> None:
        round = outcome.round
        if round.proposed_by is not self:
            self._guess.clear()
            return
        predicted = tops(round.answers["target"], 1)[..., 0]
        for row, key in enumerate(round.keys):
            corrected = np.where(round.forest.token[row] == ABSENT, ABSENT, predicted[row])
            # The prediction after the last accepted claim is the bonus token; what lies behind it is the new guess.
            self._guess[key] = corrected[len(outcome.emitted[row]) :]


def parts(config: Config) -> Parts:
    jacobi = Jacobi(config)
    return Parts(propose=jacobi, verify=SampleThenMatch(), observe=(jacobi,), claims=config.block + 1)
