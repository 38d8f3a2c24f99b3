"""Bigram: the token that most often followed this one in the row's own text, and so on for a few tokens.

The weakest drafter that looks back, here to show what a method in a package of its own is made of. Of successors that came
equally often the latest wins. Cost: one target call a round, no other model. Lossless: the draft is a function of the text.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from treewright.core.claims import ABSENT
from treewright.core.errors import require
from treewright.core.roles import Parts, Round
from treewright.parts.verify.sample_then_match import SampleThenMatch

CARD = {
    "title": "Bigram drafts from the text itself, a sample of a plug-in",
    "year": 2026,
    "link": "",
    "card": None,
    "aliases": [],
    "roles": ["propose", "verify"],
    "models": [],
    "needs": ["left_to_right", "tree"],
    "claims": ["lossless"],
}


@dataclass(frozen=True)
class Config:
    """
    tokens: drafted a round
    """

    tokens: int = 4

    def __post_init__(self) -> None:
        require(self.tokens >= 1, "tokens", self.tokens, "an integer >= 1")


def successors(text: list[int]) -> dict[int, int]:
    """For each token its most frequent successor in the text, the latest of those on a tie."""
    best: dict[int, int] = {}
    counts: Counter[tuple[int, int]] = Counter()
    for pair in pairwise(text):
        counts[pair] += 1
        before, after = pair
        if before not in best or counts[pair] >= counts[before, best[before]]:
            best[before] = after
    return best


class Bigram:
    """Proposes a chain."""

    def __init__(self, config: Config) -> None:
        self._config = config

    def propose(self, round: Round) -> None:
        length = min(self._config.tokens, round.claims - 1)
        if length < 1:
            return
        drafts = np.full((round.rows, length), ABSENT)
        for row in range(round.rows):
            text = round.text.of(row).tolist()
            after, token = successors(text), text[-1]
            for depth in range(length):
                if token not in after:
                    break
                token = drafts[row, depth] = after[token]
        round.forest.grow(range(length), drafts)


def parts(config: Config) -> Parts:
    return Parts(propose=Bigram(config), verify=SampleThenMatch(), claims=config.tokens + 1)
