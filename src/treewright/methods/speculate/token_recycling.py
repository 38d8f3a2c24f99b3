"""Token Recycling: the successors that the target itself last predicted after each token fill a fixed token tree.

Luo et al. 2024, "Turning Trash into Treasure" (https://arxiv.org/abs/2408.08696). An adjacency matrix M [V, k] keeps, for
each token of the vocabulary, the k most probable tokens at the last claim that held it, accepted or not. A round fills a
static tree breadth first, token(child) = M[token(parent)][rank], and scores it in one forward; then every column's top k
overwrites its row, later columns winning. M is shared by the rows and kept from one generation to the next.

Cost: one target call a round, no other model. Lossless: greedy walk at temperature 0, sample-then-match above it.

Beside the paper: rows of M that were never written are skipped (the released code fills the tree with token 0 eight times
over); `learn_prompt` also fills M from the prompt's own predictions, which the released code does not; a smaller `nodes`
keeps the nodes of the template with the best product of average rank acceptances, and a claim limit of the engine (batch,
machine) shrinks the tree the same way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from treewright.core.claims import ABSENT, Shape
from treewright.core.errors import require
from treewright.core.roles import Outcome, Parts, Round
from treewright.ops.largest import tops
from treewright.parts.verify.sample_then_match import SampleThenMatch

CARD = {
    "title": "Turning Trash into Treasure: Accelerating Inference of Large Language Models with Token Recycling",
    "year": 2024,
    "link": "https://arxiv.org/abs/2408.08696",
    "card": 2,
    "aliases": ["recycling", "TR"],
    "roles": ["propose", "verify", "observe"],
    "models": [],
    "needs": ["left_to_right", "tree"],
    "claims": ["lossless"],
}

# Numbers of children of the paper's template 2.2.2, level by level; a node's children have ranks 0, 1, ...
TEMPLATE: tuple[Mapping[Any, int], ...] = (
    {(): 8},
    dict(zip([(rank,) for rank in range(8)], (8, 4, 3, 2, 1, 1, 1, 1), strict=True)),
    {(0, 0): 8, (0, 1): 3, (0, 2): 2, (0, 3): 1, (0, 4): 1, (0, 5): 1, (0, 6): 1, (0, 7): 1}
    | {(1, 0): 2, (1, 1): 1, (2, 0): 1, (3, 0): 1, (4, 0): 1, (5, 0): 1},
    {(0, 0, 0): 5, (0, 0, 1): 2, (0, 0, 2): 1, (0, 0, 3): 1, (0, 0, 4): 1, (0, 1, 0): 1, (0, 2, 0): 1}
    | {(1, 0, 0): 1, (2, 0, 0): 1, (3, 0, 0): 1},
    {(0, 0, 0, 0): 3, (0, 0, 0, 1): 1, (0, 0, 0, 2): 1, (0, 0, 1, 0): 1, (0, 1, 0, 0): 1, (1, 0, 0, 0): 1},
    {(0, 0, 0, 0, 0): 2, (0, 0, 0, 1, 0): 1},
)
# How often a child of this rank is the one that is accepted; only the order it puts the template's nodes in matters.
RANK_WEIGHT = (0.60, 0.16, 0.08, 0.05, 0.035, 0.025, 0.02, 0.015)


@dataclass(frozen=True)
class Config:
    """
    k: successors kept for each token, at most the template's 8
    nodes: claims a round, at most 80; choose it from `treewright bench verify-cost`
    learn_prompt: fill the matrix from the prompt's own predictions too
    """

    k: int = 8
    nodes: int = 80
    learn_prompt: bool = True

    def __post_init__(self) -> None:
        require(1 <= self.k <= len(RANK_WEIGHT), "k", self.k, f"an integer from 1 to {len(RANK_WEIGHT)}")
        require(1 <= self.nodes <= 80, "nodes", self.nodes, "an integer from 1 to 80")


def template_paths() -> list[tuple[int, ...]]:
    """The 80 rank paths of the template, breadth first."""
    return [(*path, rank) for level in TEMPLATE for path, count in level.items() for rank in range(count)]


@cache
def pruned_template(nodes: int, k: int) -> tuple[Shape, tuple[tuple[slice, np.ndarray, np.ndarray], ...]]:
    """The `nodes` most promising template nodes of ranks below k: their shape, and for each level its columns, the
    parents' columns and the ranks."""
    usable = [path for path in template_paths() if max(path) < k]
    weight = {path: float(np.prod([RANK_WEIGHT[rank] for rank in path])) for path in usable}
    best = sorted(sorted(usable, key=lambda path: -weight[path])[:nodes], key=lambda path: (len(path), path))
    column = {(): 0} | {path: index for index, path in enumerate(best, start=1)}
    levels = []
    for depth in sorted({len(path) for path in best}):
        level = [path for path in best if len(path) == depth]
        span = slice(column[level[0]], column[level[-1]] + 1)
        parents = np.array([column[path[:-1]] for path in level])
        levels.append((span, parents, np.array([path[-1] for path in level])))
    return Shape.frontier().grow([column[path[:-1]] for path in best]), tuple(levels)


class TokenRecycling:
    """Proposer and observer around the matrix M."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self.prompt_top = config.k if config.learn_prompt else 0

    def matrix(self, round: Round) -> np.ndarray:
        """M [V + 1, k], ABSENT where nothing was predicted yet; the last row stands for absent tokens."""
        vocabulary = round.vocabulary
        key = ("token_recycling", vocabulary, self._config.k)
        return round.memories.model(key, lambda: np.full((vocabulary + 1, self._config.k), ABSENT, np.int64))

    def propose(self, round: Round) -> None:
        nodes = min(self._config.nodes, round.claims - 1)
        if nodes < 1:
            return
        matrix = self.matrix(round)
        shape, levels = pruned_template(nodes, self._config.k)
        token = np.empty((round.rows, shape.columns), np.int64)
        token[:, :1] = round.forest.token
        for columns, parents, ranks in levels:
            token[:, columns] = matrix[token[:, parents], ranks]
        round.forest.replace(shape, token)

    def read_prompts(self, round: Round, prompts: Sequence[Sequence[int]], top: np.ndarray) -> None:
        matrix = self.matrix(round)
        for prompt, predicted in zip(prompts, top, strict=True):
            known = len(prompt) - 1
            matrix[np.asarray(prompt[:known], np.int64)] = predicted[:known]

    def observe(self, outcome: Outcome) -> None:
        token = outcome.round.forest.token
        top = tops(outcome.round.answers["target"], self._config.k)
        present = token != ABSENT
        self.matrix(outcome.round)[token[present]] = top[present]


def parts(config: Config) -> Parts:
    recycling = TokenRecycling(config)
    return Parts(propose=recycling, verify=SampleThenMatch(), observe=(recycling,), claims=config.nodes + 1)
