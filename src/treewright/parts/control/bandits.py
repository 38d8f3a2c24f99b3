"""Bandits over a few arms with rewards in [0, 1]: what was seen, and two policies that choose by it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np


@dataclass(slots=True)
class Pulls:
    """What was seen of each of K arms. count [K], reward [K] the sums of rewards as they came. scale: the reward that counts
    as 1, 0 while there is none. loss [K]: the sums of EXP3's loss estimates at that scale, weight [K]: what they would be
    if no round had brought anything."""

    arms: int
    count: np.ndarray = field(init=False)
    reward: np.ndarray = field(init=False)
    loss: np.ndarray = field(init=False)
    weight: np.ndarray = field(init=False)
    scale: float = 0.0

    def __post_init__(self) -> None:
        self.count, self.reward, self.loss, self.weight = (np.zeros(self.arms) for _ in range(4))

    @property
    def rounds(self) -> int:
        """Rounds that were learned from."""
        return int(self.count.sum())

    def widen(self, scale: float) -> None:
        """Lets rewards up to `scale` come, and brings the losses of earlier rounds to it; a smaller scale changes nothing."""
        if scale > self.scale:
            self.loss = self.weight - (self.weight - self.loss) * (self.scale / scale)
            self.scale = scale

    def add(self, arm: int, reward: float) -> None:
        self.count[arm] += 1
        self.reward[arm] += reward

    def add_loss(self, arm: int, reward: float, law: np.ndarray) -> None:
        """EXP3's estimates of a round with this reward, at most `scale`, of an arm that was drawn from law [K]."""
        share = reward / self.scale if self.scale > 0 else 0.0
        self.loss += loss_estimate(self.arms, arm, share, law)
        self.weight += loss_estimate(self.arms, arm, 0.0, law)


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
