"""A small network that says how likely a draft is to be accepted, trained in place on what was seen. Host arithmetic only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

RATE, MOMENT, SQUARE = 0.02, 0.9, 0.999


@dataclass(slots=True)
class Classifier:
    """One hidden layer: p = sigmoid(output . tanh(hidden . x + bias) + bias), x the features [F] made standard by mean and
    scale of the samples it was fitted to."""

    mean: np.ndarray
    scale: np.ndarray
    weights: list[np.ndarray]

    @staticmethod
    def fit(features: np.ndarray, accepted: np.ndarray, units: int, steps: int, before: Classifier | None = None) -> Classifier:
        """Fits samples [n, F] with labels [n] in 0..1 by `steps` of Adam on the mean cross-entropy of all of them. It goes on
        from the weights of `before`, or from ones that are the same every time. Cost: 2 x steps products of [n, F] x [F, units].
        """
        mean, scale = features.mean(0), features.std(0) + 1e-3
        if before is None:
            random = np.random.default_rng(0)
            weights = [random.normal(size=(features.shape[1], units)) * 0.5, np.zeros(units), np.zeros(units), np.zeros(1)]
        else:
            weights = [weight.copy() for weight in before.weights]
        model = Classifier(mean, scale, weights)
        first, second = ([np.zeros_like(weight) for weight in weights] for _ in range(2))
        for step in range(1, steps + 1):
            for index, slope in enumerate(model._slopes(features, accepted)):
                first[index] = MOMENT * first[index] + (1 - MOMENT) * slope
                second[index] = SQUARE * second[index] + (1 - SQUARE) * slope**2
                size = np.sqrt(second[index] / (1 - SQUARE**step)) + 1e-8
                weights[index] -= RATE * first[index] / (1 - MOMENT**step) / size
        return model

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """The probability that drafts with these features [n, F] are accepted, [n]."""
        return self._answer(features)[1]

    def loss(self, features: np.ndarray, accepted: np.ndarray) -> float:
        """Mean cross-entropy in nats."""
        chance = np.clip(self(features), 1e-12, 1 - 1e-12)
        return float(-(accepted * np.log(chance) + (1 - accepted) * np.log(1 - chance)).mean())

    def _answer(self, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        inner, inner_bias, outer, outer_bias = self.weights
        units = np.tanh((features - self.mean) / self.scale @ inner + inner_bias)
        return units, 1 / (1 + np.exp(-(units @ outer + outer_bias)))

    def _slopes(self, features: np.ndarray, accepted: np.ndarray) -> list[np.ndarray]:
        """The gradient of the loss by each weight."""
        units, chance = self._answer(features)
        error = (chance - accepted) / len(features)
        below = np.outer(error, self.weights[2]) * (1 - units**2)
        return [((features - self.mean) / self.scale).T @ below, below.sum(0), units.T @ error, error.sum(keepdims=True)]
