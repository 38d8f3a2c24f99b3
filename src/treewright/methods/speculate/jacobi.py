"""Jacobi decoding: guess a block, let the model correct all of it at once, keep the part that has converged.

Santilli et al. 2023, "Accelerating Transformer Inference for Translation via Parallel Decoding"
(https://arxiv.org/abs/2305.10427). The predictions after a wrong guess become the next guess. As claims: a chain; the
converged prefix is what a greedy walk accepts, so every round fixes at least one token and no extra forward is needed to
see convergence (the released code waits for two equal iterates).

- `mode=blocks` is the paper's Gauss-Seidel-Jacobi (GSJ): the new tokens are cut into blocks of `block` positions, and the next
  one is begun once all of a block have converged. A round solves what is open of the block, its first position without a guess.
  Blocks of one position are plain decoding; one block as long as the text is parallel Jacobi (PJ). Where a text stops inside a
  block it ends there, which is what the paper's hybrid (HGJ) adds.
- `mode=sliding`, the default, begins a position as soon as one has converged: `block` guesses stand behind the text in every
  round, which therefore solves one position more than they are. No column is lost at a block's end, and a position is iterated
  from the moment it comes within reach; over as many columns it took 2 to 5 % fewer rounds than blocks (`docs/log.md`).

A place that was never predicted begins with the row's last token, or with the token `initial`: the paper begins with the
tokenizer's padding token, which many models of today have none of.

Cost: one target call a round, at most one round for each token. Lossless. Above temperature 0 guesses are argmaxes and the
walk is sample-then-match, so it stays exact but accepts less. The target length that the released PJ and GSJ need is never
asked for: the most new tokens of the request are the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from treewright.core.claims import ABSENT
from treewright.core.errors import require
from treewright.core.roles import Outcome, Parts, Round
from treewright.ops.largest import tops
from treewright.parts.fitting import known_token
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
    block: sliding: guesses a round; blocks: positions of a block (the paper's b), the first of which needs no guess
    mode: let the block slide with the text, or finish one block after another
    initial: the token id that a place begins with; the row's last token if None
    """

    block: int = 3
    mode: Literal["sliding", "blocks"] = "sliding"
    initial: int | None = None

    def __post_init__(self) -> None:
        require(self.block >= 1, "block", self.block, "an integer >= 1")
        require(self.mode in ("sliding", "blocks"), "mode", self.mode, "'sliding' or 'blocks'")
        require(self.initial is None or self.initial >= 0, "initial", self.initial, "a token id >= 0, or None")

    @property
    def guesses(self) -> int:
        """The most guesses of a round."""
        return self.block if self.mode == "sliding" else self.block - 1


class Jacobi:
    """Keeps each row's guess for the tokens that follow its text; a new or moved row starts from the initial token, and so does
    a row whose round was drafted by somebody else."""

    prompt_top = 0

    def __init__(self, config: Config) -> None:
        self._config = config
        self._guess: dict[tuple[int, int], np.ndarray] = {}

    def propose(self, round: Round) -> None:
        config, text = self._config, round.text
        guesses = np.full(round.rows, config.guesses)
        if config.mode == "blocks":
            guesses -= (text.length - text.prompt) % config.block
        width = min(int(guesses.max()), round.claims - 1)
        if width < 1:
            return
        begin = round.forest.token[:, :1] if config.initial is None else np.full((round.rows, 1), config.initial)
        token = np.repeat(begin, width, axis=1)
        for row, key in enumerate(round.keys):
            guess = self._guess.get(key, token[row, :0])[:width]
            token[row, : len(guess)] = guess
        token[np.arange(width) >= guesses[:, None]] = ABSENT
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
            present = round.forest.token[row] != ABSENT
            # The prediction after the last accepted claim is the bonus token; what lies behind it is the new guess.
            self._guess[key] = predicted[row][present][len(outcome.emitted[row]) :]


def parts(config: Config) -> Parts:
    jacobi = Jacobi(config)
    fits = () if config.initial is None else (known_token("initial", config.initial),)
    return Parts(propose=jacobi, verify=SampleThenMatch(), observe=(jacobi,), claims=config.guesses + 1, fits=fits)
