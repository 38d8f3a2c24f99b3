"""Prompt lookup: what followed the last few tokens when they stood in the text before is the draft.

Saxena 2023 (https://github.com/apoorvumang/prompt-lookup-decoding). For n = max_ngram down to 1 the last n tokens are
searched in prompt and output; the continuation of a match is a chain of claims.

Cost: one target call a round, no other model. Lossless (the draft is deterministic). Of several matches the latest with a
full continuation is taken, else the one with the longest; `match=earliest` gives the behaviour of the Spec-Bench variant,
which also demands a full continuation (`full=true`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from treewright.core.claims import ABSENT
from treewright.core.errors import require
from treewright.core.roles import Parts, Round
from treewright.ops.ngram import continuation
from treewright.parts.verify.sample_then_match import SampleThenMatch

CARD = {
    "title": "Prompt Lookup Decoding",
    "year": 2023,
    "link": "https://github.com/apoorvumang/prompt-lookup-decoding",
    "card": None,
    "aliases": ["PLD", "n-gram", "ngram"],
    "roles": ["propose", "verify"],
    "models": [],
    "needs": ["left_to_right", "tree"],
    "claims": ["lossless"],
}


@dataclass(frozen=True)
class Config:
    """
    tokens: the longest draft
    max_ngram: the longest run of last tokens that is searched
    match: which of several matches is continued
    full: only matches with a continuation of full length count
    """

    tokens: int = 10
    max_ngram: int = 3
    match: Literal["latest", "earliest"] = "latest"
    full: bool = False

    def __post_init__(self) -> None:
        require(self.tokens >= 1, "tokens", self.tokens, "an integer >= 1")
        require(self.max_ngram >= 1, "max_ngram", self.max_ngram, "an integer >= 1")


class PromptLookup:
    def __init__(self, config: Config) -> None:
        self._config = config

    def propose(self, round: Round) -> None:
        config = self._config
        widths = np.minimum(round.deepest, min(config.tokens, round.claims - 1)).tolist()
        drafts = [
            continuation(round.text.of(row), config.max_ngram, width, config.match == "latest", config.full)
            for row, width in enumerate(widths)
        ]
        longest = max(map(len, drafts))
        if longest == 0:
            return
        token = np.full((round.rows, longest), ABSENT)
        for row, draft in enumerate(drafts):
            token[row, : len(draft)] = draft
        round.forest.grow(range(longest), token)


def parts(config: Config) -> Parts:
    return Parts(propose=PromptLookup(config), verify=SampleThenMatch(), claims=config.tokens + 1, row_drafts=True)
