"""The static schedule of masked diffusion: blocks from left to right, a fixed number of slots a step, the best rank first."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from treewright.core.answers import Answers
from treewright.core.roles import Round
from treewright.core.text import Text
from treewright.parts.diffuse.proposals import Fills, Look


@dataclass(frozen=True, slots=True)
class Static:
    """What follows from a state alone, so that any two methods that share it agree.

    block: slots of a block, 0 for one block. tokens: slots a step, used where `steps` is 0. steps: for the whole canvas; the
    blocks share them evenly, and the slots of a block share its steps evenly, the first blocks and steps taking what is left
    over. rank: one of `RANKS`. ends_last: proposed end-of-text ids are filled last.
    """

    block: int = 0
    tokens: int = 1
    steps: int = 0
    rank: str = "confidence"
    ends_last: bool = False

    def blocks(self, text: Text, row: int) -> list[range]:
        """The blocks of a row's canvas."""
        first, end = int(text.prompt[row]), int(text.length[row])
        return [range(start, min(start + (self.block or end), end)) for start in range(first, end, self.block or end)]

    def current(self, text: Text, row: int, canvas: np.ndarray) -> tuple[range, np.ndarray]:
        """The first block that has open slots, and those slots; the last block and none where the canvas is full."""
        for block in self.blocks(text, row):
            open_slots = block.start + np.flatnonzero(canvas[block.start : block.stop] == text.blank)
            if len(open_slots):
                return block, open_slots
        return block, open_slots

    def count(self, text: Text, row: int, block: range, left: int) -> int:
        """Slots that the next step fills in a block with `left` open ones."""
        if not self.steps:
            return min(self.tokens, left)
        blocks = self.blocks(text, row)
        own = self.steps // len(blocks) + (blocks.index(block) < self.steps % len(blocks))
        own = max(1, min(own, len(block)))
        done = len(block) - left
        reached = [step * (len(block) // own) + min(step, len(block) % own) for step in range(1, own + 1)]
        return next(end for end in reached if end > done) - done

    def plan(self, round: Round, answers: Answers, row: int, column: int, canvas: np.ndarray, most: int) -> list[Fills]:
        """The next `most` steps if this one answer, to `canvas`, held for all of them; the first one is the schedule's own.

        Costs no call. Fewer steps where the canvas has no more.
        """
        canvas, looks, steps = canvas.copy(), dict[range, Look](), list[Fills]()
        first = int(round.text.prompt[row])
        while len(steps) < most and (left := int((canvas[first:] == round.text.blank).sum())):
            block, slots = self.current(round.text, row, canvas)
            look = looks.get(block) or Look(round, answers, row, column, canvas, slots.tolist())
            looks[block] = look
            count = self.count(round.text, row, block, len(slots))
            fills = look.among(slots).fills(self.rank, left, count, self.ends_last)
            for slot, token in fills:
                canvas[slot] = token
            steps.append(fills)
        return steps
