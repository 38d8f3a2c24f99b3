"""What an expert believes more than an amateur does, among what the expert finds plausible.

Li et al. 2022 (https://arxiv.org/abs/2210.15097), O'Brien & Lewis 2023 (https://arxiv.org/abs/2309.09117).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from treewright.core.errors import require
from treewright.ops.softmax import log_softmax
from treewright.parts.steer.own_prompt import OwnPrompt

Form = Literal["reasoning", "original"]


@dataclass
class Contrast(OwnPrompt):
    """Steering by the model of the role `amateur`: (1 + beta) z_expert - beta z_amateur in the form "reasoning",
    log p_expert - log p_amateur in the form "original" with the amateur at its own temperature; -inf where p_expert is less than
    alpha max p_expert. At beta 0 (and alpha 0) the form "reasoning" is the expert itself."""

    form: Form = "reasoning"
    alpha: float = 0.1
    beta: float = 0.5
    amateur_temperature: float = 1.0
    models: tuple[str, ...] = ("amateur",)

    def __post_init__(self) -> None:
        require(0 <= self.alpha <= 1, "alpha", self.alpha, "a number in [0, 1]")
        require(self.amateur_temperature > 0, "amateur_temperature", self.amateur_temperature, "a number > 0")

    def steer(self, logits: np.ndarray, others: Mapping[str, np.ndarray], prefix: np.ndarray, row: tuple[int, int]) -> np.ndarray:
        expert, amateur = logits.astype(np.float64), others["amateur"].astype(np.float64)
        if self.form == "reasoning":
            scores = (1 + self.beta) * expert - self.beta * amateur
        else:
            scores = log_softmax(expert) - log_softmax(amateur / self.amateur_temperature)
        with np.errstate(divide="ignore"):
            plausible = expert >= expert.max() + np.log(self.alpha)
        return np.where(plausible, scores, -np.inf)
