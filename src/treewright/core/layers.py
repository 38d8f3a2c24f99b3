"""Which parts of a model's layers a forward runs: early exit, skipped parts, layers whose attention runs side by side."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LayerPlan:
    """attention, mlp: numbers of the layers (from 0) whose attention and whose feed-forward part run; what does not run passes
    its input on. group: as many consecutive layers read the input of the first of them in their attention; 1 is the model's
    own order. layers: how many the model has."""

    layers: int
    attention: frozenset[int]
    mlp: frozenset[int]
    group: int = 1

    @staticmethod
    def whole(layers: int) -> LayerPlan:
        """Every part, in the model's own order."""
        return LayerPlan.until(layers, layers)

    @staticmethod
    def until(layers: int, end: int) -> LayerPlan:
        """The first `end` layers, then the model's own head."""
        return LayerPlan(layers, frozenset(range(end)), frozenset(range(end)))

    @staticmethod
    def without(layers: int, attention: Collection[int] = (), mlp: Collection[int] = ()) -> LayerPlan:
        """All layers but for these attention and these feed-forward parts."""
        every = frozenset(range(layers))
        return LayerPlan(layers, every - frozenset(attention), every - frozenset(mlp))

    @property
    def share(self) -> float:
        """Parts that run, of all parts; what a forward costs is counted in this."""
        return (len(self.attention) + len(self.mlp)) / (2 * self.layers)

    @property
    def is_whole(self) -> bool:
        """Whether this is the model itself."""
        return self.share == 1 and self.group == 1


def share_run(plans: Sequence[LayerPlan]) -> float:
    """What a forward runs of all parts under one plan for all rows, or one for each: every part that some row needs. All of them
    without plans, which is the whole model."""
    if not plans:
        return 1.0
    attention = frozenset[int]().union(*(plan.attention for plan in plans))
    mlp = frozenset[int]().union(*(plan.mlp for plan in plans))
    return LayerPlan(plans[0].layers, attention, mlp).share
