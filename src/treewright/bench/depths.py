"""How far into their trees rounds were accepted, counted from traces."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from treewright.core.trace import Step


@dataclass(slots=True)
class Depths:
    """rounds of rows; claims: drafts in all of them. tried[d]: rounds that accepted d drafts or more and had claimed a token
    after those, one place deeper; accepted[d]: those of them that accepted it."""

    rounds: int = 0
    claims: int = 0
    tried: list[int] = field(default_factory=list)
    accepted: list[int] = field(default_factory=list)

    def add(self, steps: Iterable[Step]) -> None:
        """Counts the rounds of one row."""
        for step in steps:
            self.rounds += 1
            self.claims += sum(token >= 0 for token in step.token[1:])
            below = _depth_below(step)
            for depth in range(len(step.accepted) + (below is not None)):
                self._reserve(depth)
                self.tried[depth] += 1
                self.accepted[depth] += depth < len(step.accepted)

    def merge(self, other: Depths) -> None:
        """Adds what another counted."""
        self.rounds += other.rounds
        self.claims += other.claims
        for depth, (tried, accepted) in enumerate(zip(other.tried, other.accepted, strict=True)):
            self._reserve(depth)
            self.tried[depth] += tried
            self.accepted[depth] += accepted

    def _reserve(self, depth: int) -> None:
        if depth == len(self.tried):
            self.tried.append(0)
            self.accepted.append(0)

    @property
    def chances(self) -> list[float]:
        """The share of rounds that accepted the next draft, by how many they had accepted."""
        return [accepted / tried for tried, accepted in zip(self.tried, self.accepted, strict=True)]

    @property
    def tokens_per_round(self) -> float:
        """Drafts accepted in a round, and the token that the target adds."""
        return 1 + sum(self.accepted) / max(1, self.rounds)


def _depth_below(step: Step) -> int | None:
    """A present claim below the last one that was accepted, None where the draft went no further."""
    last = step.accepted[-1] if step.accepted else 0
    children: Sequence[int] = [
        column for column in range(1, len(step.token)) if step.parent[column] == last and step.token[column] >= 0
    ]
    return children[0] if children else None
