"""Plain decoding: one claim a round, greedy or sampling. The law that every lossless method must reproduce.

Cost: one target call for each token.
"""

from __future__ import annotations

from dataclasses import dataclass

from treewright.core.roles import Parts
from treewright.parts.verify.sample_then_match import SampleThenMatch

CARD = {
    "title": "Plain autoregressive decoding",
    "year": 0,
    "link": "",
    "card": None,
    "aliases": ["greedy", "sampling", "autoregressive"],
    "roles": ["verify"],
    "models": [],
    "needs": ["left_to_right"],
    "claims": ["lossless"],
}


@dataclass(frozen=True)
class Config:
    """No options: temperature and warpers belong to the request."""


def parts(config: Config) -> Parts:
    return Parts(verify=SampleThenMatch())
