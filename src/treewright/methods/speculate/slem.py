"""SLEM: the draft model writes text in its own tokens, the target's tokenizer reads it, and what it reads is the draft.

Timor et al. 2025, "Accelerating LLM Inference with Lossless Speculative Decoding Algorithms for Heterogeneous Vocabularies"
(https://arxiv.org/abs/2502.05202), string-level exact match, in transformers "universal assisted generation". The draft
writes `tokens` of its own; their text is read together with the last committed tokens, whose ids never change, and the new
ids are a chain of deterministic claims. The walk is sample-then-match: a draft is accepted if the target draws that very
token, which above temperature 0 happens with probability sum of p psi, psi being the law of the first token that is read.

Cost: one target call and at most `tokens` draft calls a round. Lossless for any two tokenizers that spell bytes, with or without
common tokens. What the draft wrote stays in its memory as far as the target's text agrees with it.

Beside the paper: where the target's tokenizer would join committed and new text across the border, the new text is read alone
instead of being appended with what it repeats. An unfinished character at the end is not drafted. A draft
with the target's own tokenizer is not read again: its tokens are the claims.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from treewright.core.claims import ABSENT, Forest
from treewright.core.errors import require
from treewright.core.randomness import DRAFT
from treewright.core.roles import Parts, Round
from treewright.core.translation import Translation
from treewright.ops.largest import tops
from treewright.parts.verify.sample_then_match import SampleThenMatch

CARD = {
    "title": "Accelerating LLM Inference with Lossless Speculative Decoding Algorithms for Heterogeneous Vocabularies (SLEM)",
    "year": 2025,
    "link": "https://arxiv.org/abs/2502.05202",
    "card": None,
    "aliases": ["string-level exact match", "universal assisted generation", "UAG"],
    "roles": ["propose", "verify"],
    "models": ["draft"],
    "translated": {"draft": "own"},
    "needs": ["left_to_right", "tree"],
    "claims": ["lossless"],
    "tables": {"tokens": 2},
}


@dataclass(frozen=True)
class Config:
    """
    tokens: tokens that the draft model writes in a round, in its own vocabulary; at most twice as many claims come of them
    """

    tokens: int = 6

    def __post_init__(self) -> None:
        require(self.tokens >= 1, "tokens", self.tokens, "an integer >= 1")


class WrittenDraft:
    """Proposer: a chain of the target's tokens out of what the draft model wrote."""

    def __init__(self, config: Config) -> None:
        self._config = config

    def propose(self, round: Round) -> None:
        if round.claims < 2 or round.depth_left < 1:
            return
        translation = round.translations.get("draft")
        own = Forest(round.text.frontier())
        written = self._write(round, own, translation)
        drafts = [self._read(round, translation, row, tokens) for row, tokens in enumerate(written)]
        longest = max(map(len, drafts))
        if longest:
            token = np.full((round.rows, longest), ABSENT)
            for row, draft in enumerate(drafts):
                token[row, : len(draft)] = draft
            round.forest.grow(range(longest), token)
        if translation is None:
            columns = np.arange(round.forest.columns)
            round.sessions["draft"].adopt(np.broadcast_to(columns, (round.rows, len(columns))))

    def _write(self, round: Round, own: Forest, translation: Translation | None) -> list[list[int]]:
        """What each row's draft model writes, in own ids, up to a token that spells nothing."""
        written: list[list[int]] = [[] for _ in range(round.rows)]
        going = np.ones(round.rows, bool)
        most = self._config.tokens if translation is not None else min(self._config.tokens, round.claims - 1, round.depth_left)
        for step in range(most):
            answers = round.sessions["draft"].score(own)
            if round.request.sampling.greedy:
                token = np.where(going, tops(answers, 1)[:, step, 0], ABSENT)
            else:
                law = round.draft_law(np.stack([answers.row(row, step) for row in range(round.rows)]))
                token = np.array([self._draw(round, law[row], row, step) if going[row] else ABSENT for row in range(round.rows)])
            for row in np.flatnonzero(token != ABSENT).tolist():
                written[row].append(int(token[row]))
                going[row] = translation is None or translation.spell(int(token[row])) is not None
            going &= token != ABSENT
            if not going.any():
                break
            own.grow([step], np.where(going, token, ABSENT)[:, None])
        return written

    @staticmethod
    def _draw(round: Round, law: np.ndarray, row: int, step: int) -> int:
        return round.randomness.index(law, round.keys[row], round.position(row, step), DRAFT) if law.any() else ABSENT

    @staticmethod
    def _read(round: Round, translation: Translation | None, row: int, written: list[int]) -> list[int]:
        """The target's ids of what a row wrote, as many as there is room for."""
        room = max(0, min(round.claims - 1, int(round.deepest[row])))
        if translation is None:
            return written[:room]
        texts = [translation.spell(token) for token in written]
        ids = translation.follow(round.text.of(row).tolist(), b"".join(text for text in texts if text is not None))
        twin = translation.twin(written[-1]) if written and texts[-1] is None else -1
        return [*ids, *([twin] if twin >= 0 else [])][:room]


def parts(config: Config) -> Parts:
    return Parts(propose=WrittenDraft(config), verify=SampleThenMatch(), claims=2 * config.tokens + 1, drafts=config.tokens + 1)
