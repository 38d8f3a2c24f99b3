"""Drafts from a part of the target's own layers: whom to ask, how sure the answer is, and which layers a model has."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from treewright.core.answers import Answers
from treewright.core.claims import ABSENT
from treewright.core.errors import CapabilityError
from treewright.core.layers import LayerPlan
from treewright.core.roles import Round
from treewright.core.session import Capabilities
from treewright.ops.softmax import softmax
from treewright.parts.propose.draft_model import Ask


def ask_layers(plans: Callable[[Round], Sequence[LayerPlan]]) -> Ask:
    """Asks the target through the part of its layers that `plans` names, one for all rows or one for each. One forward over
    what is new, on the memory that the whole target left."""
    return lambda round: round.sessions["target"].sketch(round.forest, *plans(round))


def drafted_probability(round: Round, answers: Answers, parent: int, column: int) -> np.ndarray:
    """How probable a drafted token was to its drafter, [R]: under the warped law it was drawn from, at temperature 0 under the
    softmax of the logits. 0 where a row drafted nothing."""
    found, greedy = np.zeros(round.rows), round.request.sampling.greedy
    for row in range(round.rows):
        token = int(round.forest.token[row, column])
        if token != ABSENT:
            drawn = None if greedy else float(round.forest.q[parent][row, token])
            found[row] = own_probability(answers, row, parent, token) if drawn is None else drawn
    return found


def own_probability(answers: Answers, row: int, parent: int, token: int) -> float:
    """How probable a token is under the model's own law after `parent`, temperature 1 and nothing cut away."""
    return float(softmax(answers.row(row, parent))[token])


def check_layers(option: str, layers: Sequence[int], lowest: int = 0, beyond: int = 0) -> Callable[[Capabilities], None]:
    """For `Parts.fits`: every one of `layers` must be a number from `lowest` to the last layer (counted from 0), or `beyond`
    higher. Raises CapabilityError."""

    def check(has: Capabilities) -> None:
        highest = has.layers - 1 + beyond
        wrong = [layer for layer in layers if not lowest <= layer <= highest]
        if wrong:
            raise CapabilityError(
                f"{option} names {wrong[0]} and the model has {has.layers} layers; give numbers from {lowest} to {highest}"
            )

    return check
