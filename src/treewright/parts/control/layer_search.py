"""Looking for the parts of the layers that a model drafts well without: sets of sub-layers tried at random, and now and then
where a Gaussian process fitted to the scores so far expects most."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from treewright.core.layers import LayerPlan

POOL = 256
"""Random sets among which a Bayesian trial takes the most promising."""
NOISE = 1e-3
"""Variance of a score about its mean, where scores are standardised."""


def start_plan(layers: int) -> LayerPlan:
    """All layers but every second one, from the second on; the first and the last always run."""
    skipped = range(1, layers - 1, 2)
    return LayerPlan.without(layers, skipped, skipped)


@dataclass
class LayerSearch:
    """Asked for a plan to try with `next`, told with `tell` how well it did, it keeps the best.

    layers: how many the model has; sub-layers are the attention and the feed-forward parts of all but the first and the last.
    count: how many a trial leaves out; None to leave out each with probability one half. every: each how many trials one is
    Bayesian (0: never), with the upper confidence bound mean + kappa * deviation. seed: of the order sets are tried in, which is
    the search's own and no part of a text's chance. plan, score: the best so far. trials: told so far; idle: since the last gain.
    """

    layers: int
    count: int | None = None
    every: int = 25
    kappa: float = 2.5
    seed: int = 0
    plan: LayerPlan = field(init=False)
    score: float = field(default=-np.inf, init=False)
    trials: int = field(default=0, init=False)
    idle: int = field(default=0, init=False)
    _tried: list[np.ndarray] = field(default_factory=list, init=False)
    _scores: list[float] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        self.plan = start_plan(self.layers)

    @property
    def places(self) -> int:
        """Sub-layers that may be left out: first the attention parts, then the feed-forward parts."""
        return 2 * max(0, self.layers - 2)

    def next(self) -> LayerPlan:
        """The plan to try: the one to start from in the first trial, later a set of its own for each trial. Until `tell` it is
        the same."""
        if self.trials == 0:
            return self.plan
        chance = np.random.default_rng([self.seed, self.trials])
        if self.every and self.trials % self.every == 0:
            pool = np.stack([self._random(chance) for _ in range(POOL)])
            return self._plan(pool[int(self._bound(pool).argmax())])
        return self._plan(self._random(chance))

    def tell(self, plan: LayerPlan, score: float) -> None:
        """How well a plan did; larger is better."""
        self.trials, self.idle = self.trials + 1, self.idle + 1
        self._tried.append(self._places_of(plan))
        self._scores.append(score)
        if score > self.score:
            self.plan, self.score, self.idle = plan, score, 0

    def _random(self, chance: np.random.Generator) -> np.ndarray:
        skipped = chance.random(self.places) < 0.5
        if self.count is not None:
            skipped[:] = False
            skipped[chance.permutation(self.places)[: self.count]] = True
        return skipped

    def _plan(self, skipped: np.ndarray) -> LayerPlan:
        attention, mlp = skipped.reshape(2, -1)
        return LayerPlan.without(
            self.layers, (np.flatnonzero(attention) + 1).tolist(), (np.flatnonzero(mlp) + 1).tolist()
        )  # fmt: skip

    def _places_of(self, plan: LayerPlan) -> np.ndarray:
        inner = range(1, self.layers - 1)
        return np.array([layer not in part for part in (plan.attention, plan.mlp) for layer in inner], bool)

    def _bound(self, pool: np.ndarray) -> np.ndarray:
        """Upper confidence bounds of the sets in `pool` [N, places], by a Gaussian process over the sets that were tried."""
        tried, scores = np.stack(self._tried), np.array(self._scores)
        spread = scores.std() or 1.0
        known = self._likeness(tried, tried) + NOISE * np.eye(len(tried))
        across = self._likeness(pool, tried)
        mean = across @ np.linalg.solve(known, (scores - scores.mean()) / spread)
        variance = 1 - np.einsum("ij,ji->i", across, np.linalg.solve(known, across.T))
        return mean + self.kappa * np.sqrt(np.maximum(variance, 0))

    def _likeness(self, one: np.ndarray, other: np.ndarray) -> np.ndarray:
        """Matern kernel (5/2) of sets [N, places] and [M, places]; its length is the distance of two random sets."""
        differing = (one[:, None] != other[None]).sum(-1)
        distance = np.sqrt(5 * differing / (self.places / 2))
        return (1 + distance + distance**2 / 3) * np.exp(-distance)
