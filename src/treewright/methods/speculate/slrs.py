"""SLRS: the draft model's text is seen as a law over the target's tokens, and exact rejection is done with that law.

Timor et al. 2025, "Accelerating LLM Inference with Lossless Speculative Decoding Algorithms for Heterogeneous Vocabularies"
(https://arxiv.org/abs/2502.05202), string-level rejection sampling. Let the draft write until the first token of the target in
its text is settled; psi(t) is the probability that this token is t, summed over all that the draft may write. A draw from psi is
accepted with probability min(1, p/psi), else the token comes from norm([p - psi]+): sum of min(p, psi) in all, at least what
matching (`slem`) accepts.

Text is settled once it is no mere beginning of a token of the target. Every way to write such a beginning in draft tokens is a
claim of its own on the draft model, so this is for small vocabularies of short tokens: `most` of them are allowed, and where
there are more the method refuses.

Cost: one target call and at most `tokens` draft calls a round, of as many claims as there are beginnings. Lossless.

Beside the paper: the token is drawn from psi itself and not from a text, which is the same law, and what the draft writes without
spelling anything the target knows is left out of psi. The next draft goes on behind the drafted token and not behind the text.
With the target's own tokenizer psi is the draft's law, and this is `speculative_sampling`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from treewright.core.claims import ABSENT, Forest, Law
from treewright.core.errors import CapabilityError, require
from treewright.core.randomness import DRAFT
from treewright.core.roles import Parts, Round
from treewright.core.translation import Translation
from treewright.parts.propose.draft_model import DraftChain, ask_model
from treewright.parts.verify.rejection import Rejection

CARD = {
    "title": "Accelerating LLM Inference with Lossless Speculative Decoding Algorithms for Heterogeneous Vocabularies (SLRS)",
    "year": 2025,
    "link": "https://arxiv.org/abs/2502.05202",
    "card": None,
    "aliases": ["string-level rejection sampling"],
    "roles": ["propose", "verify"],
    "models": ["draft"],
    "translated": {"draft": "own"},
    "needs": ["left_to_right", "tree"],
    "claims": ["lossless"],
}
LONGEST = 8
"""Draft tokens that a drafted token may take; behind a longer one the row drafts no further."""


@dataclass(frozen=True)
class Config:
    """
    tokens: drafts a round
    most: beginnings of the target's tokens, each way to write one counted, that the draft model may be asked about for a draft
    """

    tokens: int = 3
    most: int = 64

    def __post_init__(self) -> None:
        require(self.tokens >= 1, "tokens", self.tokens, "an integer >= 1")
        require(self.most >= 0, "most", self.most, "an integer >= 0")


@dataclass(slots=True)
class Beginnings:
    """All that the draft may write without settling a token: node 0 is nothing, node i is its node `parents[i]` and then the
    draft token `tokens[i]`, which spell `texts[i]`. next [i]: node by draft token."""

    parents: list[int]
    tokens: list[int]
    texts: list[bytes]
    next: list[dict[int, int]]

    @classmethod
    def of(cls, translation: Translation, most: int) -> Beginnings:
        """Raises CapabilityError where there are more than `most`, node 0 left out."""
        found = cls([ABSENT], [ABSENT], [b""], [{}])
        spelled = [(token, text) for token in range(translation.vocabulary) if (text := translation.spell(token))]
        node = 0
        while node < len(found.texts):
            for token, text in spelled:
                if translation.may_grow(found.texts[node] + text):
                    if len(found.texts) > most:
                        raise CapabilityError(
                            f"slrs must ask the draft model about every way to write the beginning of a token, and there are "
                            f"more than {most}; set slrs.most higher, or use slem or tli"
                        )
                    found.next[node][token] = len(found.texts)
                    found.parents.append(node)
                    found.tokens.append(token)
                    found.texts.append(found.texts[node] + text)
                    found.next.append({})
            node += 1
        return found


class TextLaw:
    """Proposer: a chain of draws from psi; where both models share a vocabulary, the draft model's own chain."""

    asks = True

    def __init__(self, config: Config) -> None:
        self._config = config
        self._beginnings: Beginnings | None = None

    def propose(self, round: Round) -> None:
        translation = round.translations.get("draft")
        if translation is None:
            DraftChain(ask_model("draft"), self._config.tokens).propose(round)
            return
        own, above = Forest(round.text.frontier()), np.zeros(round.rows, np.int64)
        for step in range(min(self._config.tokens, round.claims - 1, round.depth_left)):
            if step:
                above = self._say(round, translation, own, above)
            law = self._laws(round, translation, own, above)
            token = np.full(round.rows, ABSENT)
            for row in np.flatnonzero((above >= 0) & law.any(-1)).tolist():
                token[row] = round.randomness.index(law[row], round.keys[row], round.position(row, step), DRAFT)
            if (token == ABSENT).all():
                return
            round.forest.grow([step], token[:, None], Law.SINGLE, {step: law})

    def _say(self, round: Round, translation: Translation, own: Forest, above: np.ndarray) -> np.ndarray:
        """Claims the newest drafts on the draft model, in its own ids, under the columns `above`; the columns they end at, -1
        where a row has no draft to go on from."""
        ids = [translation.own([token]) if token >= 0 else [] for token in round.forest.token[:, -1].tolist()]
        above = np.where([0 < len(said) <= LONGEST for said in ids], above, ABSENT)
        for place in range(max((len(said) for row, said in enumerate(ids) if above[row] >= 0), default=0)):
            token = np.array([
                said[place] if above[row] >= 0 and place < len(said) else ABSENT for row, said in enumerate(ids)
            ])  # fmt: skip
            column = own.grow(np.where(token >= 0, above, ABSENT)[:, None], token[:, None]).start
            above = np.where(token >= 0, column, above)
        return above

    def _laws(self, round: Round, translation: Translation, own: Forest, above: np.ndarray) -> np.ndarray:
        """psi [R, V] behind the claims `above`; all 0 where the draft says nothing that the target knows. One call."""
        session = round.sessions["draft"]
        if self._beginnings is None:
            self._beginnings = Beginnings.of(translation, self._config.most)
        known, first = self._beginnings, own.columns
        if len(known.texts) > 1:
            offset = np.array([first + parent - 1 if parent else ABSENT for parent in known.parents[1:]])
            parents = np.where(offset >= 0, offset[None], above[:, None])
            token = np.where(above[:, None] >= 0, np.array(known.tokens[1:])[None], ABSENT)
            own.grow(np.where(above[:, None] >= 0, parents, ABSENT), token)
        answers, psi = session.score(own), np.zeros((round.rows, round.vocabulary))
        for row in np.flatnonzero(above >= 0).tolist():
            columns = [int(above[row]), *range(first, own.columns)]
            laws = round.draft_law(np.stack([answers.row(row, column) for column in columns]))
            drafted = round.forest.path_tokens(row, round.forest.columns - 1)
            self._sum(psi[row], translation, [*round.text.of(row).tolist(), *drafted], laws)
            psi[row] /= psi[row].sum() or 1.0
        return psi

    def _sum(self, psi: np.ndarray, translation: Translation, before: list[int], laws: np.ndarray) -> None:
        """Adds to psi what each beginning leads to. laws [nodes, own V]: what the draft writes behind each."""
        known: Beginnings = self._beginnings  # type: ignore[assignment]
        weights = np.zeros(len(known.texts))
        weights[0] = 1.0
        for node, text in enumerate(known.texts):
            for token in np.flatnonzero(laws[node]).tolist() if weights[node] > 0 else ():
                chance = float(weights[node] * laws[node, token])
                if token in known.next[node]:
                    weights[known.next[node][token]] = chance
                    continue
                spelled = translation.spell(token)
                whole = spelled is None and not text
                found = translation.twin(token) if whole else translation.first(before, text + (spelled or b""))
                if found >= 0:
                    psi[found] += chance


def parts(config: Config) -> Parts:
    asked = 1 + config.tokens * (config.most + LONGEST)
    return Parts(propose=TextLaw(config), verify=Rejection(), probabilities=True, claims=config.tokens + 1, drafts=asked)
