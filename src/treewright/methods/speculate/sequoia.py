"""Sequoia: one tree for all rounds, the best there is if the b-th child tried is accepted with probability P[b].

Chen et al. 2024, "Sequoia: Scalable, Robust, and Hardware-aware Speculative Decoding" (https://arxiv.org/abs/2402.12374). P is
estimated from what verification accepts, by the place of a child among its siblings. A dynamic programme gives the tree of
the most expected tokens for every size and depth; where times of calls are known, size and depth are those of the least
time for each token. A round draws the tree level by level from the draft model, siblings without replacement, and exact rejection
tries them in that order; a refused token leaves both laws, which is what makes wide trees pay at every temperature.

Cost: one target call and at most `depth` draft calls a round. Lossless. At temperature 0 children are the most probable tokens.

Beside the paper: P is learned while decoding, one for each sampling setting, and the tree is made anew whenever twice as many
claims were visited; the paper calibrates before. A `profile` begins with what was measured: a JSON file with
{"acceptance": [P1, P2, ...], "draft_seconds": s, "target_seconds": {"1": s, "16": s, ...}}, all of it optional, where the
keys of target_seconds are columns of a call, frontier included. `treewright bench profile --model TARGET --with draft=DRAFT
--output FILE` measures one, with the paper's P of 32 places. Depths of the paper count the root and a draft call for the last
level, which has no children and is not asked here. Where fewer tokens are left in the draft's law than a claim has children
(top-k and its like), the paper tries uniform draws of the other tokens; here those children are absent.

Defaults: the paper's trees on a graphics card have 128 nodes and 10 levels, both with the root. Ours are as deep (`depth` 9 below
the root) and half as large (`nodes` 63), since rounds on a CPU end at 64 columns; give nodes=127 elsewhere. The vector that is
believed before anything was seen has 16 places, not 32: continued to 32, its best trees of 64 and 128 nodes stay the same, with
at most 9 and 14 children.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from treewright.core.errors import InputError, require
from treewright.core.roles import Outcome, Parts, Round
from treewright.parts.propose.draft_model import Levels, ask_model, draw_tree
from treewright.parts.propose.ordered_trees import Acceptance, TreeTable
from treewright.parts.verify.rejection import Rejection

CARD = {
    "title": "Sequoia: Scalable, Robust, and Hardware-aware Speculative Decoding",
    "year": 2024,
    "link": "https://arxiv.org/abs/2402.12374",
    "card": 84,
    "aliases": [],
    "roles": ["propose", "verify", "observe"],
    "models": ["draft"],
    "needs": ["left_to_right", "tree"],
    "claims": ["lossless"],
    "tables": {"nodes": 2, "depth": 2},
}

PRIOR = (0.6, 0.12, 0.06, 0.035, 0.025, 0.02, 0.015, 0.012, 0.01, 0.008, 0.007, 0.006, 0.005, 0.005, 0.004, 0.004)
"""What is believed of P before anything was seen: the shape of the vectors that were published, rounded."""
EXAMPLE = '{"acceptance": [0.6, 0.1], "draft_seconds": 0.002, "target_seconds": {"1": 0.02, "16": 0.03}}'
FIRST_LESSON = 32
"""Visited claims after which the tree is made anew for the first time."""


@dataclass(frozen=True)
class Config:
    """
    nodes: the most claims a round, the frontier not counted
    depth: the most levels of claims, and so the most draft calls
    profile: a JSON file with an acceptance vector and times of calls; empty for none
    learn: learn the acceptance vector while decoding
    """

    nodes: int = 63
    depth: int = 9
    profile: str = ""
    learn: bool = True

    def __post_init__(self) -> None:
        require(self.nodes >= 1, "nodes", self.nodes, "an integer >= 1")
        require(self.depth >= 1, "depth", self.depth, "an integer >= 1")


@dataclass(frozen=True, slots=True)
class Profile:
    """What was measured before: P [W], seconds of a draft call, seconds of a target call by its columns (empty: unknown)."""

    acceptance: tuple[float, ...] = PRIOR
    draft_seconds: float = 0.0
    target_seconds: tuple[tuple[int, float], ...] = ()

    @staticmethod
    def read(path: str) -> Profile:
        """The profile in a JSON file. Raises InputError where it cannot be read or holds impossible numbers."""
        try:
            found = json.loads(Path(path).read_text(encoding="utf-8"))
            unknown = sorted(set(found) - {"acceptance", "draft_seconds", "target_seconds"})
            profile = Profile(
                tuple(map(float, found.get("acceptance", PRIOR))),
                float(found.get("draft_seconds", 0.0)),
                tuple(sorted((int(size), float(seconds)) for size, seconds in found.get("target_seconds", {}).items())),
            )
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise InputError(f"profile {path} cannot be read ({error}); give a JSON file such as {EXAMPLE}") from None
        vector, times = profile.acceptance, [profile.draft_seconds, *(seconds for _, seconds in profile.target_seconds)]
        require(not unknown, "profile's field", ", ".join(unknown), "acceptance, draft_seconds, target_seconds")
        possible = bool(vector) and min(vector) >= 0 and sum(vector) <= 1 + 1e-9
        require(possible, "profile's acceptance", list(vector), "probabilities >= 0 whose sum is at most 1")
        require(all(time >= 0 for time in times), "profile's seconds", times, "numbers >= 0")
        return profile


@dataclass(slots=True)
class Plan:
    """What is known of P, and the trees that follow from it."""

    acceptance: Acceptance
    next_lesson: int = FIRST_LESSON
    table: TreeTable | None = None
    trees: dict[tuple[int, int], Levels] = field(default_factory=dict)


class Sequoia:
    """Proposer and observer."""

    prompt_top = 0

    def __init__(self, config: Config) -> None:
        self._config = config
        self._profile = Profile.read(config.profile) if config.profile else Profile()

    def plan(self, round: Round) -> Plan:
        key = ("sequoia", round.request.sampling, self._config, self._profile)
        return round.memories.model(key, lambda: Plan(Acceptance(self._profile.acceptance)))

    def propose(self, round: Round) -> None:
        nodes, depth = min(self._config.nodes, round.claims - 1), min(self._config.depth, round.depth_left)
        if nodes > 0 and depth > 0:
            draw_tree(round, ask_model("draft"), self.tree(self.plan(round), nodes + 1, depth + 1))

    def tree(self, plan: Plan, nodes: int, depth: int) -> Levels:
        """The tree for at most this size and depth, root included in both."""
        config = self._config
        if plan.table is None or (config.learn and plan.acceptance.seen >= plan.next_lesson):
            plan.next_lesson = max(FIRST_LESSON, 2 * plan.acceptance.seen)
            plan.table, plan.trees = TreeTable(plan.acceptance.vector().tolist(), config.nodes + 1, config.depth + 1), {}
        if (nodes, depth) not in plan.trees:
            size, levels = nodes, depth
            if self._profile.target_seconds:
                size, levels = self._fastest(plan.table, nodes, depth)
            plan.trees[nodes, depth] = plan.table.best(size, levels)
        return plan.trees[nodes, depth]

    def _fastest(self, table: TreeTable, nodes: int, depth: int) -> tuple[int, int]:
        measured = {size: seconds for size, seconds in self._profile.target_seconds if 0 < size <= nodes}
        return table.fastest(self._profile.draft_seconds, measured, depth) if measured else (nodes, depth)

    def read_prompts(self, round: Round, prompts: Sequence[Sequence[int]], top: np.ndarray) -> None:
        """Prompts say nothing about acceptance."""

    def observe(self, outcome: Outcome) -> None:
        # How siblings of another drafter are taken says nothing of these.
        if self._config.learn and outcome.round.proposed_by is self:
            acceptance = self.plan(outcome.round).acceptance
            for row in range(outcome.round.rows):
                for tried, accepted in tries(outcome, row):
                    acceptance.learn(tried, accepted)


def tries(outcome: Outcome, row: int) -> list[tuple[int, bool]]:
    """For each claim of a row whose children were tried: how many were, and whether the last of them was accepted. Where a stop
    cut the text off, what was decided after it is not told."""
    forest, path = outcome.round.forest, outcome.verdict.paths[row]
    children, found = forest.shape.children(row), []
    for column, follower in zip([0, *path], [*path, None], strict=True):
        present = [child for child in children[column] if forest.token[row, child] >= 0]
        if follower is not None:
            found.append((present.index(follower) + 1, True))
        elif present and outcome.verdict.extra[row] >= 0:
            found.append((len(present), False))
    return found


def parts(config: Config) -> Parts:
    sequoia = Sequoia(config)
    return Parts(propose=sequoia, verify=Rejection(), observe=(sequoia,), probabilities=True, claims=config.nodes + 1)
