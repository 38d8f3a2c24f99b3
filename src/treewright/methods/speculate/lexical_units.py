"""Lexical Unit Decoding: placeholders behind the text have the model predict several tokens at once; a confident run is kept.

Sun et al. 2024, "Decoding at the Speed of Thought: Harnessing Parallel Decoding of Lexical Units for LLMs"
(https://arxiv.org/abs/2405.15208). A lexical unit is a run of tokens that the model is sure of together. A round appends
window - 1 placeholders to the text, and one forward predicts the next `window` tokens. Of these the first becomes text, and each
further one while all before it and it itself were predicted with a probability above `confidence`. Placeholders leave nothing
behind: what was written is read with the next round's placeholders.

Cost: one target call a round, no other model. A run of more than sixteen tokens can cost a call more, which reads them.

The model must have been fine-tuned for it: any model runs, and one that never saw the placeholder writes poor text. The data
recipe: teacher-force the model on a corpus and join a token to the one before it where its probability is above a threshold; in
the inputs replace the tokens of each unit but the first by the placeholder, and train on the true next token everywhere.

Not lossless: a token is chosen without knowing the ones chosen beside it. With confidence 1, or a window of 1, every round writes
one token and the text is plain decoding's with the same model, token for token.

`verify` makes it a drafter that is lossless: what was predicted behind placeholders are claims of the next round, and each of
them, like the frontier, has placeholders of its own, so that wherever the accepted run ends its continuation was predicted in the
same forward. That is window ** 2 columns a round; a smaller limit on claims shrinks the window. A draft ends before its first
prediction that is not above `confidence`.

Beside the paper: its repository holds no code, and the rule is known to us from descriptions. Probabilities are those of
temperature 1, and the largest of them is the confidence, whichever token is drawn; so no noise is spent on a token that is not
kept. Its control of repetitions is left out. Steering, constraints and penalties ask for the tokens before, which placeholders
hide, so they are refused unless `verify` is on.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from treewright.core.claims import ABSENT
from treewright.core.errors import require
from treewright.core.roles import Outcome, Parts, Round, TargetLaw, Verdict
from treewright.ops.softmax import softmax
from treewright.parts.fitting import known_token
from treewright.parts.verify.sample_then_match import SampleThenMatch

CARD = {
    "title": "Decoding at the Speed of Thought: Harnessing Parallel Decoding of Lexical Units for LLMs",
    "year": 2024,
    "link": "https://arxiv.org/abs/2405.15208",
    "card": 11,
    "aliases": ["lexical unit decoding", "LUD"],
    "roles": ["propose", "verify"],
    "models": [],
    "needs": ["left_to_right", "tree"],
    "claims": ["row_independent", "lossless_at_limit"],
    "limit": {"confidence": 1.0},
}


@dataclass(frozen=True)
class Config:
    """
    window: tokens predicted at once (k); a fine-tuned model's own
    confidence: probability above which predictions are kept (beta); 1 keeps one token a round
    placeholder: the token id that stands for tokens to come, as the model was fine-tuned with, often its pad token
    verify: check every prediction in the next round, lossless
    """

    window: int = 4
    confidence: float = 0.9
    placeholder: int = 0
    verify: bool = False

    def __post_init__(self) -> None:
        require(self.window >= 1, "window", self.window, "an integer >= 1")
        require(self.confidence >= 0, "confidence", self.confidence, "a number >= 0")
        require(self.placeholder >= 0, "placeholder", self.placeholder, "a token id of the model")


def largest_probability(logits: np.ndarray) -> float:
    """The largest probability of logits [V] at temperature 1."""
    return float(softmax(logits).max()) if logits.max() > -math.inf else 0.0


class LexicalUnits:
    """Proposer of placeholders, and the verifier that keeps the confident run behind them."""

    def __init__(self, config: Config) -> None:
        self._config = config

    def propose(self, round: Round) -> None:
        room = round.text.remaining()
        width = min(self._config.window, round.claims, int(room.max())) - 1
        if width < 1:
            return
        # A placeholder at depth d predicts token d + 1, for which a row must have room.
        tokens = np.where(np.arange(1, width + 1) < room[:, None], self._config.placeholder, ABSENT)
        round.forest.grow(range(width), tokens)

    def verify(self, round: Round, law: TargetLaw) -> Verdict:
        extra, written = [], []
        for row in range(round.rows):
            first, _ = law.draw(row, 0)
            extra.append(first)
            written.append(self._run(round, law, row) if first >= 0 else [])
        return Verdict([[] for _ in extra], extra, finished=[token < 0 for token in extra], written=written)

    def _run(self, round: Round, law: TargetLaw, row: int) -> list[tuple[int, int]]:
        """What is kept after the first token: (column, token) pairs."""
        bar, run = self._config.confidence, list[tuple[int, int]]()
        if not largest_probability(law.logits(row, 0)) > bar:
            return run
        for column in range(1, round.forest.columns):
            if round.forest.token[row, column] == ABSENT or not largest_probability(law.logits(row, column)) > bar:
                break
            run.append((column, law.draw(row, column)[0]))
        return run


class LexicalDrafts:
    """Proposer and observer of the lossless form: a chain of earlier predictions, placeholders behind each of them and behind the
    frontier. A new row, and one whose round was drafted by somebody else, has placeholders behind its frontier only."""

    prompt_top = 0

    def __init__(self, config: Config) -> None:
        self._config = config
        self._guess: dict[tuple[int, int], list[int]] = {}

    def propose(self, round: Round) -> None:
        width = min(self._config.window, math.isqrt(round.claims)) - 1
        if width < 1:
            return
        chain = np.full((round.rows, width), ABSENT)
        for row, key in enumerate(round.keys):
            guess = self._guess.get(key, [])[:width]
            chain[row, : len(guess)] = guess
        round.forest.grow(range(width), chain)
        drafted = round.forest.token != ABSENT
        parents = list(range(width + 1))
        for _ in range(width):
            parents = list(round.forest.grow(parents, np.where(drafted, self._config.placeholder, ABSENT)))

    def read_prompts(self, round: Round, prompts: Sequence[Sequence[int]], top: np.ndarray) -> None:
        """Prompts say nothing about the tokens after them."""

    def observe(self, outcome: Outcome) -> None:
        round, forest = outcome.round, outcome.round.forest
        if round.proposed_by is not self:
            self._guess.clear()
            return
        width = math.isqrt(forest.columns) - 1
        for row, key in enumerate(round.keys):
            column = outcome.verdict.paths[row][-1] if outcome.verdict.paths[row] else 0
            self._guess[key] = self._predicted(round, row, range(column + width + 1, forest.columns, width + 1))

    def _predicted(self, round: Round, row: int, columns: Sequence[int]) -> list[int]:
        """The confident run behind the extra token, which took the place of the first placeholder."""
        guess: list[int] = []
        for column in columns:
            logits = round.answers["target"].row(row, column)
            if round.forest.token[row, column] == ABSENT or not largest_probability(logits) > self._config.confidence:
                break
            guess.append(int(logits.argmax()))
        return guess


def parts(config: Config) -> Parts:
    fits = (known_token("placeholder", config.placeholder),)
    if config.verify:
        drafts = LexicalDrafts(config)
        return Parts(propose=drafts, verify=SampleThenMatch(), observe=(drafts,), claims=config.window**2, fits=fits)
    units = LexicalUnits(config)
    return Parts(propose=units, verify=units, claims=config.window, bonus=False, one_law=True, fits=fits)
