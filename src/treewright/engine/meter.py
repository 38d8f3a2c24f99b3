"""What a run has taken so far, model calls and time, and whether that is all it may."""

from __future__ import annotations

from collections.abc import Callable

from treewright.core.request import Budget
from treewright.core.session import Recorder
from treewright.core.trace import Call


class Meter:
    """calls: every model call of the run, in order. target_calls: how many of them were the target's of kind "score", which is
    what a budget of model calls counts; columns: what these computed for each row. `clock` gives seconds."""

    def __init__(self, budget: Budget, clock: Callable[[], float]) -> None:
        self.calls: list[Call] = []
        self.target_calls, self.columns = 0, 0
        self._budget, self._clock = budget, clock
        self._started = clock()

    def recorder(self, model: str) -> Recorder:
        """What the session of a model reports its calls to."""

        def record(kind: str, rows: int, columns: int, seconds: float, share: float = 1.0) -> None:
            self.calls.append(Call(model, kind, rows, columns, seconds, share))
            if model == "target" and kind == "score":
                self.target_calls += 1
                self.columns += columns

        return record

    def now(self) -> float:
        return self._clock()

    def spent(self) -> bool:
        """Whether the budget allows no further call."""
        budget = self._budget
        if budget.model_calls is not None and self.target_calls >= budget.model_calls:
            return True
        return budget.seconds is not None and self._clock() - self._started >= budget.seconds
