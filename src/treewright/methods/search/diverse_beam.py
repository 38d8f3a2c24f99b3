"""Diverse beam search: beams in groups that choose one after another, each paying for tokens that earlier groups just took.

Vijayakumar et al. 2018, "Diverse Beam Search" (https://arxiv.org/abs/1610.02424). `beams` are split into `groups`, each a beam
search of its own with its own hypotheses. At every step the groups choose in order, and a child is ranked by its
log-probability less `strength` for each beam of an earlier group that took the same token at this step (Hamming diversity).
The first group is plain beam search of width beams / groups; one group is plain beam search.

Cost: that of beam search, one target call of `beams` rows for each step.

Beside the paper: as there, the penalty steers the choice and is forgotten, so a hypothesis is scored by its probability;
transformers' former group beam search kept it in the score. Beams that end at a step count as having taken their token,
as in the authors' code. Endings, scores and what temperature does are those of `beam`. The answer is ranked over all
groups, and a text that two groups found is given once. So there may be fewer answers than were asked for: what stands in
for a text found twice would be none of its group's best, and diversity is what the method is asked for. The trace says how
many are missing (`notes["selection"]["missing"]`), as it does for every search that a constraint leaves fewer texts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from treewright.core.errors import require
from treewright.core.roles import Parts
from treewright.parts.search.beams import BeamSearch, BeamSettings

CARD = {
    "title": "Diverse Beam Search: Decoding Diverse Solutions from Neural Sequence Models",
    "year": 2018,
    "link": "https://arxiv.org/abs/1610.02424",
    "card": 43,
    "aliases": ["group_beam", "dbs"],
    "roles": ["verify", "select"],
    "models": [],
    "needs": ["left_to_right"],
    "claims": ["equals_beam_in_groups"],
}


@dataclass(frozen=True)
class Config:
    """
    beams: beams of all groups
    groups: groups that choose in turn; must divide `beams`, and with 1 this is plain beam search
    strength: what a token loses for each beam of an earlier group that took it at this step, in nats
    length_penalty: exponent of the length that a log-probability is divided by
    early_stopping: when a group has searched enough, as for `beam`: True, False or "never"
    """

    beams: int = 4
    groups: int = 2
    strength: float = 0.5
    length_penalty: float = 1.0
    early_stopping: bool | Literal["never"] = False

    def __post_init__(self) -> None:
        require(self.beams >= 1, "beams", self.beams, "an integer >= 1")
        divides = self.groups >= 1 and self.beams % self.groups == 0
        require(divides, "groups", self.groups, f"an integer that divides beams ({self.beams})")
        counts = self.strength > 0 or (self.strength == 0 and self.groups == 1)
        require(counts and math.isfinite(self.strength), "strength", self.strength, "a number > 0 (or 0 with one group)")


def parts(config: Config) -> Parts:
    settings = BeamSettings(config.beams, config.length_penalty, config.early_stopping, config.groups, config.strength)
    search = BeamSearch(settings)
    return Parts(verify=search, select=search, candidates=config.beams, bonus=True, together=True, whole_laws=True)
