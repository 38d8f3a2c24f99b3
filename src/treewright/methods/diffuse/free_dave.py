"""FreeDave: one answer drafts the next states of the static schedule, one batched call checks them all.

Wu and Zhang 2025, "Free Draft-and-Verification: Toward Lossless Parallel Decoding for Diffusion Large Language Models"
(https://arxiv.org/abs/2510.00294). The answer to the present state proposes a token and a rank for every open slot. Filling
the best one, the best two, ... gives `drafts` further states, and all of them are read in one call. A state's own answer says
what the static schedule does next; as long as that is the next draft, the draft is right, and the walk goes on. The answer to
the last right state drafts the next round, so drafting and checking cost no call of their own.

Cost: one target call of `drafts` canvases a round, and one call more at the start. For n steps of the static schedule between
1 + ceil((n - 1) / drafts) and n calls. On a CPU every canvas is real compute: calls fall, seconds need not.

Emits token for token what `llada` with the same options emits (`equals_static`), wherever two forwards of one canvas give
the same answer; in 16 bits, near ties may flip.

Beside the paper: noise is keyed by slot and open slots, so drafts and checks share it and the identity holds at every
temperature and for every rank, not at temperature 0 alone. Drafts run on into the next block, where the paper's own variant
raises the priority of the present one. Drafts of several slots a step are one claim a slot, of which only the last is
asked. Without: FreeDave++ (threshold drafts), and caches.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from treewright.core.claims import ABSENT
from treewright.core.errors import require
from treewright.core.roles import Parts, Round, TargetLaw, Verdict
from treewright.parts.diffuse.proposals import Fills
from treewright.parts.diffuse.static import Static

CARD = {
    "title": "Free Draft-and-Verification: Toward Lossless Parallel Decoding for Diffusion Large Language Models",
    "year": 2025,
    "link": "https://arxiv.org/abs/2510.00294",
    "card": 4,
    "aliases": ["freedave"],
    "roles": ["propose", "verify"],
    "models": [],
    "needs": ["any_order"],
    "claims": ["fills_canvas", "equals_static"],
}


@dataclass(frozen=True)
class Config:
    """
    drafts: states that a call looks ahead
    block: slots of a block; 0: the whole canvas is one
    tokens: slots that a step of the static schedule fills
    rank: which slot comes first, as in `llada`
    ends_last: fill slots with end of text last
    """

    drafts: int = 4
    block: int = 0
    tokens: int = 1
    rank: Literal["confidence", "top", "margin", "entropy", "random"] = "confidence"
    ends_last: bool = False

    def __post_init__(self) -> None:
        require(self.drafts >= 1, "drafts", self.drafts, "an integer >= 1")
        require(self.block >= 0, "block", self.block, "an integer >= 0")
        require(self.tokens >= 1, "tokens", self.tokens, "an integer >= 1")


class FreeDave:
    """Proposer of chains of states and their verifier."""

    def __init__(self, drafts: int, schedule: Static) -> None:
        self._drafts, self._schedule = drafts, schedule

    def propose(self, round: Round) -> None:
        most = min(self._drafts, (round.claims - 1) // self._schedule.tokens)
        answers, left = round.sessions["target"].root(), round.text.remaining().tolist()
        plans = [self._schedule.plan(round, answers, row, 0, round.text.of(row), most) for row in range(round.rows)]
        for plan, open_slots in zip(plans, left, strict=True):
            if sum(map(len, plan)) == open_slots:
                del plan[-1:]  # A full canvas is nobody's question.
        steps = max(map(len, plans))
        slot, token = np.full((2, round.rows, steps * self._schedule.tokens), ABSENT)
        for row, plan in enumerate(plans):
            self._lay_out(plan, slot[row], token[row])
        asked = [(column + 1) % self._schedule.tokens == 0 for column in range(slot.shape[1])]
        round.forest.grow(range(slot.shape[1]), token, slots=slot, asked=asked)

    def _lay_out(self, plan: list[Fills], slot: np.ndarray, token: np.ndarray) -> None:
        """A step that fills fewer slots than others fills its last one again, so that steps end at the same columns."""
        width = self._schedule.tokens
        for step, fills in enumerate(plan):
            padded = np.array(fills + [fills[-1]] * (width - len(fills)), np.int64)
            slot[step * width : (step + 1) * width], token[step * width : (step + 1) * width] = padded.T

    def verify(self, round: Round, law: TargetLaw) -> Verdict:
        verdict = Verdict([], [-1] * round.rows, fills=[])
        for row in range(round.rows):
            path, fills = self._walk(round, row)
            verdict.paths.append(path)
            verdict.fills.append(fills)  # type: ignore[union-attr]
        return verdict

    def _walk(self, round: Round, row: int) -> tuple[list[int], Fills]:
        """The claims that the schedule makes true; the step itself where none is, or where it is the last one."""
        forest, answers, width = round.forest, round.answers["target"], self._schedule.tokens
        canvas, path = round.text.of(row).copy(), list[int]()
        while True:
            step = self._schedule.plan(round, answers, row, path[-1] if path else 0, canvas, 1)
            columns = range(len(path) + 1, len(path) + 1 + width)
            offered = columns.stop <= forest.columns and forest.token[row, columns.start] != ABSENT
            claimed = {(int(forest.slot[row, c]), int(forest.token[row, c])) for c in columns} if offered else set()  # type: ignore[index]
            if claimed != set(step[0]):
                last = int((canvas == round.text.blank).sum()) == len(step[0])
                return path, (step[0] if last or not path else [])
            path += columns
            for slot, token in step[0]:
                canvas[slot] = token


def parts(config: Config) -> Parts:
    dave = FreeDave(config.drafts, Static(config.block, config.tokens, 0, config.rank, config.ends_last))
    return Parts(propose=dave, verify=dave, claims=1 + config.drafts * config.tokens, bonus=False)
