"""Fast-dLLM: every slot the model is sure of is filled at once, and keys and values of settled slots are not computed again.

Wu et al. 2025, "Fast-dLLM: Training-free Acceleration of Diffusion LLM by Enabling KV Cache and Parallel Decoding"
(https://arxiv.org/abs/2505.22618). Blocks from left to right, as in LLaDA. A step fills every slot of the block whose proposed
token has at least the probability `threshold`, and the best one always. With `factor` f it fills the n most confident, n being
the largest with (n + 1) (1 - c) < f for the n-th confidence c: where n tokens are each more probable than 1 - e and
(n + 1) e <= 1, the most probable tokens one by one are the most probable ones together. That is all the theory promises; the
text is in general not that of one slot a step.

Caches: a block begins with one whole forward. "prefix" then computes from the block on, "dual" the block alone; what is
left out keeps the keys and values of that whole forward. In a bidirectional model they would have changed, so both are
approximations, and the session says which models can.

Cost: one target call a step; the trace says how many slots each computed. Rows that begin a block and rows inside one make
two calls of a round, so that a batch decodes as its rows alone.

Beside the paper: the factor counts as the paper says (the released code also fills the last slot of a block where it fails the
test). With a temperature, confidence is the probability of the drawn token.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from treewright.core.errors import require
from treewright.core.roles import Parts, Round, TargetLaw, Verdict
from treewright.parts.diffuse.proposals import Fills, Look
from treewright.parts.diffuse.static import Static

CARD = {
    "title": "Fast-dLLM: Training-free Acceleration of Diffusion LLM by Enabling KV Cache and Parallel Decoding",
    "year": 2025,
    "link": "https://arxiv.org/abs/2505.22618",
    "card": None,
    "aliases": ["fastdllm"],
    "roles": ["propose", "verify"],
    "models": [],
    "needs": ["any_order"],
    "claims": ["fills_canvas"],
}


@dataclass(frozen=True)
class Config:
    """
    threshold: least probability of a token that is filled with others; above 1, one slot a step
    factor: the other rule, instead of the threshold; 0: the threshold
    block: slots of a block; 0: the whole canvas is one
    cache: "none" is exact; "prefix" and "dual" reuse keys and values, which is an approximation
    """

    threshold: float = 0.9
    factor: float = 0.0
    block: int = 32
    cache: Literal["none", "prefix", "dual"] = "none"

    def __post_init__(self) -> None:
        require(self.threshold > 0, "threshold", self.threshold, "a number > 0")
        require(self.factor >= 0, "factor", self.factor, "a number >= 0")
        require(self.block >= 0, "block", self.block, "an integer >= 0")


def sure(confidence: np.ndarray, threshold: float, factor: float) -> int:
    """How many of confidences [S], largest first, are filled at once; at least one."""
    if not factor:
        return max(1, int((confidence >= threshold).sum()))
    rank = np.arange(1, len(confidence) + 1)
    fits = np.flatnonzero((rank + 1) * (1 - confidence) < factor)
    return int(fits[-1]) + 1 if len(fits) else 1


class FastDllm:
    """Says which slots must be computed, and fills those the model is sure of."""

    def __init__(self, config: Config) -> None:
        self._config, self._blocks = config, Static(config.block)

    def propose(self, round: Round) -> None:
        if self._config.cache == "none":
            return
        text, window = round.text, np.zeros((round.rows, 2), np.int64)
        for row in range(round.rows):
            block, slots = self._blocks.current(text, row, text.of(row))
            begins = len(slots) == len(block)
            last = block.stop if self._config.cache == "dual" else int(text.length[row])
            window[row] = (0, int(text.length[row])) if begins else (block.start, last)
        round.forest.window = window

    def verify(self, round: Round, law: TargetLaw) -> Verdict:
        fills = [self._fills(round, row) for row in range(round.rows)]
        return Verdict([[] for _ in fills], [-1] * round.rows, fills=fills)

    def _fills(self, round: Round, row: int) -> Fills:
        canvas = round.text.of(row)
        _, slots = self._blocks.current(round.text, row, canvas)
        look = Look(round, round.answers["target"], row, 0, canvas, slots.tolist())
        left = int(round.text.remaining()[row])
        _, confidence = look.proposals(left)
        most = sure(np.sort(confidence)[::-1], self._config.threshold, self._config.factor)
        return look.fills("confidence", left, most)


def parts(config: Config) -> Parts:
    fast = FastDllm(config)
    return Parts(propose=fast, verify=fast, bonus=False, reuse=config.cache != "none")
