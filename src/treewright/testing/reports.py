"""What laws say: a broken law is an error that carries its numbers, a kept one a small report."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from treewright.core.errors import ModelError
from treewright.core.trace import Step


class LawBroken(AssertionError):
    """A law does not hold. The message names the case and the numbers."""


@dataclass(slots=True)
class Coverage:
    """What the runs of a case exercised. outcomes: runs. rounds: the most rounds of one run. proposed, accepted: claims in
    all runs. siblings: the most claims that stood under one parent in one row."""

    outcomes: int = 0
    rounds: int = 0
    proposed: int = 0
    accepted: int = 0
    siblings: int = 0

    def add(self, steps: list[Step]) -> None:
        """Counts one run of one row."""
        self.outcomes += 1
        self.rounds = max(self.rounds, len(steps))
        for step in steps:
            parents = [parent for parent, token in zip(step.parent[1:], step.token[1:], strict=True) if token >= 0]
            self.proposed += len(parents)
            self.accepted += len(step.accepted)
            self.siblings = max([self.siblings, *(parents.count(parent) for parent in set(parents) if parent >= 0)])


@dataclass(slots=True)
class CaseReport:
    """One case of a law: its distance from what the law demands (total variation), and what it exercised."""

    case: str
    distance: float
    coverage: Coverage


@dataclass(slots=True)
class LawReport:
    """A law that held. `tolerance` bounds the distance of every case."""

    law: str
    subject: str
    tolerance: float
    cases: list[CaseReport]

    @property
    def worst(self) -> float:
        """The largest distance of any case."""
        return max(case.distance for case in self.cases)

    def total(self, count: str) -> int:
        """Sum of one count of the coverage over all cases; of `rounds` and `siblings` the maximum."""
        values = [int(getattr(case.coverage, count)) for case in self.cases]
        return max(values) if count in ("rounds", "siblings") else sum(values)

    def to_json(self) -> dict[str, Any]:
        """The report as plain data."""
        return dataclasses.asdict(self) | {"worst": self.worst}


@dataclass(frozen=True, slots=True)
class Certificate:
    """One check. `detail` is a sentence for people, `numbers` the same for programs (ties are printed in both)."""

    method: str
    check: str
    passed: bool
    seconds: float
    detail: str
    numbers: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """The check as plain data."""
        return dataclasses.asdict(self)


Finding = tuple[bool, str, dict[str, Any]]
"""Whether a check passed, its `detail` and its `numbers`."""


def timed(method: str, check: str, look: Callable[[], Finding]) -> Certificate:
    """The certificate of a check, which `look` makes. A model that fails at it, with logits that are no numbers say, fails it."""
    begin = time.perf_counter()
    try:
        passed, detail, numbers = look()
    except ModelError as error:
        passed, detail, numbers = False, str(error), {}
    return Certificate(method, check, passed, time.perf_counter() - begin, detail, numbers)
