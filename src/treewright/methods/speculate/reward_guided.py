"""Reward-guided speculative decoding: a small model writes step after step, the target only those that a reward finds wanting.

Liao et al. 2025, "Reward-Guided Speculative Decoding for Efficient LLM Reasoning" (https://arxiv.org/abs/2501.19324). The draft
model writes one step, up to the delimiter or an end of text. A process reward judges the prompt and the text so far with that
step. A step of at least `threshold` becomes text; any other is thrown away, and the target writes the step in its place.

Cost: a draft call for each token it writes, a target call for each token of a step that was refused, and a judgement of each
drafted step. Tokens that were thrown away are the claims of a trace's steps that were not accepted (`Step.token`,
`Step.accepted`, with `Step.model` "draft"); a budget of model calls counts the target's alone.

Not lossless: its text is a mixture of both models' steps. Threshold "-inf" is the draft's own text and "inf" the target's, token
for token as plain decoding gives them; neither asks for a judgement.

Beside the paper: rows of a batch draft side by side, and rows with good steps wait while others have the target write, which is
how the released loop goes too. A refused step is not offered to the target as a draft to verify: it was chosen for its low
reward, and exact rejection would no longer be exact. Tokens are kept, so nothing is encoded anew; a delimiter may lie across
tokens, and what follows it within its last token belongs to the step. A step ends after `tokens` at the latest, whoever writes
it. The whole draft of a step is one round, whose claims nothing shortens. The released guards, a number of steps and patience,
are left to max_new_tokens and to budgets. Steps that a constraint leads to a dead end are refused without being judged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from treewright.core.claims import ABSENT
from treewright.core.errors import require
from treewright.core.randomness import DRAFT as DRAFT_NOISE
from treewright.core.roles import Parts, Round, TargetLaw, Turn, Verdict
from treewright.parts.search.hypotheses import room

CARD = {
    "title": "Reward-Guided Speculative Decoding for Efficient LLM Reasoning",
    "year": 2025,
    "link": "https://arxiv.org/abs/2501.19324",
    "card": 187,
    "aliases": ["reward-guided speculative decoding"],
    "roles": ["drive", "verify"],
    "models": ["draft"],
    "scorers": ["reward"],
    "needs": ["left_to_right"],
    "claims": ["row_independent", "lossless_at_limit"],
    "limit": {"threshold": "inf"},
    "tables": {"threshold": "-inf", "tokens": 4},
}

TARGET, DRAFT = "target", "draft"


@dataclass(frozen=True)
class Config:
    """
    threshold: reward from which a drafted step is kept (delta); "-inf" keeps every step, "inf" none
    delimiter: text that ends a step
    tokens: most tokens of a step
    """

    threshold: float | Literal["-inf", "inf"] = 0.7
    delimiter: str = "\n\n"
    tokens: int = 128

    def __post_init__(self) -> None:
        require(bool(self.delimiter), "delimiter", "''", "text of at least one character")
        require(self.tokens >= 1, "tokens", self.tokens, "an integer >= 1")


@dataclass(slots=True)
class StepState:
    """Whose turn a row's next tokens are, and how many steps were drafted. Of a step that the target writes: the characters that
    were there before it, and the tokens it has."""

    model: str
    drafted: int = 0
    begun: int = 0
    tokens: int = 0


@dataclass(slots=True)
class Draft:
    """A row's step in the making: its claims, their tokens and log weights, whether it is whole, and whether it led nowhere."""

    columns: list[int] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)
    whole: bool = False
    dead: bool = False


class RewardGuided:
    """Driver and verifier. A round is either one in which the target writes a token for the rows that await it, or one in which
    every row drafts a step."""

    def __init__(self, config: Config) -> None:
        self._config, self._threshold = config, float(config.threshold)

    def turns(self, round: Round) -> Sequence[Turn]:
        models = [self._writing(round, row).model for row in range(round.rows)]
        return [Turn(TARGET if model == TARGET else None) if TARGET in models else Turn(DRAFT) for model in models]

    def _writing(self, round: Round, row: int) -> StepState:
        first = TARGET if self._threshold == np.inf else DRAFT
        return round.memories.row(round.keys[row], "reward-guided", lambda: StepState(first))

    def verify(self, round: Round, law: TargetLaw) -> Verdict:
        verdict = Verdict(
            [[] for _ in range(round.rows)], [-1] * round.rows, log_weight=[[] for _ in range(round.rows)],
            finished=[False] * round.rows,
        )  # fmt: skip
        if any(turn.model == TARGET for turn in round.turns):
            self._write(round, law, verdict)
        else:
            self._judge(round, self._draft(round, law), verdict)
        return verdict

    def _write(self, round: Round, law: TargetLaw, verdict: Verdict) -> None:
        """A token of the target's for each row that awaits it."""
        for row, turn in enumerate(round.turns):
            if turn.model != TARGET:
                continue
            writing = self._writing(round, row)
            token, weight = law.draw(row, 0)
            verdict.extra[row], verdict.log_weight[row], verdict.finished[row] = token, [weight], token < 0  # type: ignore[index]
            writing.tokens += 1
            step = round.written(row)[writing.begun :] + round.spell(row, [token]) if token >= 0 else ""
            if self._threshold < np.inf and (self._config.delimiter in step or writing.tokens == self._config.tokens):
                writing.model = DRAFT

    def _draft(self, round: Round, law: TargetLaw) -> list[Draft]:
        """A step of every row. Not whole where a budget ended it."""
        drafts = [Draft() for _ in range(round.rows)]
        limits = [min(self._config.tokens, room(round, row)) for row in range(round.rows)]
        while True:
            tip, token = round.forest.columns - 1, np.full((round.rows, 1), ABSENT)
            for row, draft in enumerate(drafts):
                if not draft.whole:
                    drawn, weight = self._draw(round, law, row, tip)
                    token[row] = drawn
                    self._add(round, row, draft, drawn, weight)
                    draft.whole = draft.whole or len(draft.tokens) == limits[row]
            round.forest.grow([tip], token)
            if all(draft.whole for draft in drafts) or not round.ask():
                return drafts

    def _draw(self, round: Round, law: TargetLaw, row: int, column: int) -> tuple[int, float]:
        """A token of a drafted step, and its log weight. A step may be refused for what its noise made of it, so whatever is
        written in its place, and every later draft there, needs other noise."""
        if law.greedy or self._threshold == -np.inf:
            return law.draw(row, column)
        chances = law.probs(row, column)
        if not chances.any():
            return -1, -np.inf
        position, trial = round.position(row, column), self._writing(round, row).drafted
        return round.randomness.index(chances, round.keys[row], position, DRAFT_NOISE, trial), 0.0

    def _add(self, round: Round, row: int, draft: Draft, token: int, weight: float) -> None:
        """Puts the next token of a row into its step, as the claim that comes next."""
        draft.weights.append(weight)
        if token < 0:
            draft.whole = draft.dead = True
            return
        draft.tokens.append(token)
        draft.columns.append(round.forest.columns)
        draft.whole = self._config.delimiter in round.spell(row, draft.tokens) or round.would_end(row, draft.tokens)

    def _judge(self, round: Round, drafts: Sequence[Draft], verdict: Verdict) -> None:
        """Steps that are good enough become text; for the others the target's turn comes."""
        for row, draft in enumerate(drafts):
            self._writing(round, row).drafted += 1
            if draft.whole and self._is_kept(round, row, draft):
                verdict.paths[row], verdict.log_weight[row] = draft.columns, draft.weights  # type: ignore[index]
                verdict.finished[row] = draft.dead  # type: ignore[index]
            elif draft.whole:
                writing = self._writing(round, row)
                writing.model, writing.begun, writing.tokens = TARGET, len(round.written(row)), 0

    def _is_kept(self, round: Round, row: int, draft: Draft) -> bool:
        """Whether the reward of the row's text with the step behind it will do. An end id is no text."""
        if self._threshold == -np.inf or draft.dead:
            return self._threshold == -np.inf
        tokens = draft.tokens[:-1] if draft.tokens[-1] in round.request.ends else draft.tokens
        text = round.written(row) + round.spell(row, tokens)
        return round.scorers["reward"].score(round.spell_prompt(row), [text])[0] >= self._threshold


def parts(config: Config) -> Parts:
    guided = RewardGuided(config)
    judged = isinstance(config.threshold, float | int)
    return Parts(
        drive=guided, verify=guided, claims=config.tokens + 1, bonus=False, writers=(DRAFT,), probabilities=judged
    )  # fmt: skip
