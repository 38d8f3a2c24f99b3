"""Beam search: the `beams` most probable beginnings of a text go on together, and the best text that one of them became wins.

Lowerre 1976 (the Harpy speech recogniser); Sutskever et al. 2014, "Sequence to Sequence Learning with Neural Networks"
(https://arxiv.org/abs/1409.3215), brought it to neural decoders. Each step looks at all children of all beams. Of the best
`beams` those that end become hypotheses; the best that do not end are the next beams. Hypotheses are compared by their
log-probability divided by length ** length_penalty, the end token counted, and the best n of them are the answer.

Cost: one target call of `beams` rows for each step; a beam that wins several children is copied. Constraints, penalties and
steering make the law that is searched; at temperature 0 that is the softmax of its logits, above it the law under the
request's temperature and warpers, whose zeros no beam enters. Above temperature 0 nothing is drawn either: the most probable
text under that law is looked for.

Beside the papers: endings, the length penalty and `early_stopping` are those of transformers, whose beam search this
equals token for token. Transformers lets its processors change log-probabilities and does not normalise them again; here
a penalised or constrained law sums to one. A stop string ends a hypothesis just as an end token does. A beam that a
constraint leaves nowhere to go is given up, and the last one ends as a dead end if no hypothesis was found.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from treewright.core.errors import require
from treewright.core.roles import Parts
from treewright.parts.search.beams import BeamSearch, BeamSettings

CARD = {
    "title": "Beam search (Sequence to Sequence Learning with Neural Networks)",
    "year": 2014,
    "link": "https://arxiv.org/abs/1409.3215",
    "card": None,
    "aliases": ["beam_search"],
    "roles": ["verify", "select"],
    "models": [],
    "needs": ["left_to_right"],
    "claims": ["equals_beam"],
}


@dataclass(frozen=True)
class Config:
    """
    beams: beginnings that go on together, and hypotheses that are kept
    length_penalty: exponent of the length that a log-probability is divided by; 0 compares probabilities, larger likes longer
    early_stopping: end with `beams` hypotheses (True), when no beam beats them now (False), or when none ever can ("never")
    """

    beams: int = 4
    length_penalty: float = 1.0
    early_stopping: bool | Literal["never"] = False

    def __post_init__(self) -> None:
        require(self.beams >= 1, "beams", self.beams, "an integer >= 1")


def parts(config: Config) -> Parts:
    search = BeamSearch(BeamSettings(config.beams, config.length_penalty, config.early_stopping))
    return Parts(verify=search, select=search, candidates=config.beams, bonus=True, together=True, whole_laws=True)
