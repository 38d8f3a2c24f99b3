"""Bandits over a few arms with rewards in [0, 1]: what was seen, and two policies that choose by it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np


@dataclass(slots=True)
class Pulls:
    """What was seen of each of K arms. count [K], reward [K] the sums of rewards as they came, best: the largest reward yet.
    loss [K]: the sums of EXP3's loss estimates."""

    arms: int
    count: np.ndarray = field(init=False)
    reward: np.ndarray = field(init=False)
    loss: np.ndarray = field(init=False)
    best: float = 0.0

    def __post_init__(self) -> None:
        self.count, self.reward, self.loss = np.zeros(self.arms), np.zeros(self.arms), np.zeros(self.arms)

    @property
    def rounds(self) -> int:
        """Rounds that were learned from."""
        return int(self.count.sum())

    def add(self, arm: int, reward: float) -> None:
        self.count[arm] += 1
        self.reward[arm] += reward
        self.best = max(self.best, reward)


def confidence_radius(count: np.ndarray, rounds: int, delta: float) -> np.ndarray:
    """UCBSpec's radius of arms that were pulled `count` [K] >= 1 times, for rewards in [0, 1], at round number `rounds`:
    1/2 sqrt((1 + n) / n^2 (1 + 2 ln(K t^2 sqrt(1 + n) / delta))). Rewards in [1, L + 1] have L times this radius."""
    inside = np.log(len(count) * rounds**2 * np.sqrt(1 + count) / delta)
    radius: np.ndarray = 0.5 * np.sqrt((1 + count) / count**2 * (1 + 2 * inside))
    return radius


def ucb_arm(pulls: Pulls, scale: float, exploration: float, delta: float) -> int:
    """UCBSpec's choice: arms that were never pulled first, in order; then the largest mean reward / scale + radius, the radius
    times `exploration`."""
    unseen = np.flatnonzero(pulls.count == 0)
    if len(unseen):
        return int(unseen[0])
    mean = pulls.reward / pulls.count / scale
    return int((mean + exploration * confidence_radius(pulls.count, pulls.rounds + 1, delta)).argmax())


def exp3_law(pulls: Pulls) -> np.ndarray:
    """EXP3Spec's probabilities of the arms, [K]: exp(-eta loss) made to sum to 1, eta = sqrt(ln K / (t K)) in round t."""
    eta = math.sqrt(math.log(pulls.arms) / ((pulls.rounds + 1) * pulls.arms))
    weights = np.exp(-eta * (pulls.loss - pulls.loss.min()))
    law: np.ndarray = weights / weights.sum()
    return law


def loss_estimate(arms: int, arm: int, reward: float, law: np.ndarray) -> np.ndarray:
    """EXP3's unbiased estimate [K] of every arm's loss 1 - reward, from the one arm that was pulled and the law it was drawn
    from: its own loss over its probability, and 0 for the others."""
    estimate = np.zeros(arms)
    estimate[arm] = (1 - reward) / law[arm]
    return estimate
