"""How far into their trees rounds were accepted, counted from traces.

A draft is a claim that a walk can reach: not an orphan, which is asked for its answer only, and not a placeholder that stands
for tokens to come. The draft below the last accepted one was refused if the target put a token of its own in its place; where
a text was cut (its end, its length, a stop, no token allowed) nobody judged it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from treewright.core.trace import Step


@dataclass(slots=True)
class Depths:
    """rounds of rows; claims: drafts in all of them. tried[d]: rounds that accepted d drafts or more and whose draft of the token
    after those was judged; accepted[d]: those of them that accepted it."""

    rounds: int = 0
    claims: int = 0
    tried: list[int] = field(default_factory=list)
    accepted: list[int] = field(default_factory=list)

    def add(self, steps: Iterable[Step], placeholders: Collection[int] = ()) -> None:
        """Counts the rounds of one row. placeholders: token ids that the method asks about and does not draft."""
        for step in steps:
            drafts = _drafts(step, placeholders)
            self.rounds += 1
            self.claims += len(drafts)
            for depth in range(len(step.accepted) + _refused(step, drafts)):
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


def _drafts(step: Step, placeholders: Collection[int]) -> list[int]:
    """The columns that a walk could reach; what it accepted is one, whichever id it has."""
    return [
        column for column in range(1, len(step.token))
        if column in step.accepted
        or (step.token[column] >= 0 and step.parent[column] >= 0 and step.token[column] not in placeholders)
    ]  # fmt: skip


def _refused(step: Step, drafts: Iterable[int]) -> bool:
    """Whether a token of the target's stands where a draft went on."""
    last = step.accepted[-1] if step.accepted else 0
    return len(step.emitted) > len(step.accepted) and any(step.parent[column] == last for column in drafts)
