"""Several drafters of which one drafts each round, with its own verifier, while all of them go on learning."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import reduce
from typing import Protocol

import numpy as np

from treewright.core.errors import CompositionError
from treewright.core.recipe import Recipe
from treewright.core.roles import Outcome, Parts, Round, TargetLaw, Verdict

SEATS = ("steer", "constrain", "form", "control", "draw", "select", "accept", "drive")
"""What an arm may not bring: it would act on rounds of other arms, or on none."""


class Chooser(Protocol):
    """Says which arm drafts, and hears what came of it."""

    def choose(self, round: Round) -> int:
        """The number of the arm that drafts this round, for all rows."""

    def learn(self, arm: int, outcome: Outcome) -> None: ...


class Switch:
    """Proposer, verifier and observer over arms, by name. Each arm keeps memory of its own. In a round the chosen arm
    proposes, and its verifier decides; then the observers of all arms hear of the round, and see in `Round.proposed_by`
    whose it was. Costs what the chosen arm costs, and the observers of all."""

    def __init__(self, arms: Mapping[str, Parts], chooser: Chooser) -> None:
        """Raises CompositionError where an arm brings more than propose, verify and observe, or has none to verify."""
        for name, arm in arms.items():
            _check(name, arm)
        self.names, self._arms, self._chooser = tuple(arms), tuple(arms.values()), chooser
        self._chosen = 0
        self.prompt_top = max((observer.prompt_top for arm in self._arms for observer in arm.observe), default=0)

    def parts(self) -> Parts:
        """The seats taken, with what all arms together ask of the engine. Raises CompositionError where one arm works at
        temperature 0 only and another only above."""
        if {True, False} <= {arm.greedy for arm in self._arms}:
            raise CompositionError("one arm works only at temperature 0 and another only above it; choose arms of one kind")
        whole = reduce(Parts.join, (Parts(greedy=None), *self._arms))
        whole.propose, whole.verify, whole.observe, whole.row_drafts = self, self, (self,), False
        return whole

    @property
    def asks(self) -> bool:
        """Whether every arm that drafts asks the controller."""
        return all(arm.asks for arm in self._arms if arm.propose is not None)

    def propose(self, round: Round) -> None:
        self._chosen = self._chooser.choose(round)
        arm = self._arms[self._chosen]
        round.claims = min(round.claims, arm.claims)
        if arm.propose is not None:
            with self._memory_of(round, self._chosen):
                round.let_propose(arm.propose)

    def verify(self, round: Round, law: TargetLaw) -> Verdict:
        with self._memory_of(round, self._chosen):
            return self._arms[self._chosen].verify.verify(round, law)  # type: ignore[union-attr]

    def read_prompts(self, round: Round, prompts: Sequence[Sequence[int]], top: np.ndarray) -> None:
        for number, arm in enumerate(self._arms):
            with self._memory_of(round, number):
                for observer in arm.observe:
                    if observer.prompt_top:
                        observer.read_prompts(round, prompts, top[..., : observer.prompt_top])

    def observe(self, outcome: Outcome) -> None:
        for number, arm in enumerate(self._arms):
            with self._memory_of(outcome.round, number):
                for observer in arm.observe:
                    observer.observe(outcome)
        self._chooser.learn(self._chosen, outcome)

    @contextmanager
    def _memory_of(self, round: Round, arm: int) -> Iterator[None]:
        """Lets the round's memory be the arm's own."""
        whole, round.memories = round.memories, round.memories.within(("arm", self.names[arm]))
        try:
            yield
        finally:
            round.memories = whole


def check_seats(recipe: Recipe) -> None:
    """Raises CompositionError where the cards of an arm name a seat that it may not bring. To be asked before the arm is built,
    for a controller alone would then be told to look for a drafter."""
    seat = next((seat for seat in SEATS if any(seat in card.roles for card in recipe.cards())), None)
    if seat:
        raise _refused(str(recipe), f"the seat '{seat}'")


def _refused(name: str, brought: str) -> CompositionError:
    return CompositionError(
        f"arm '{name}' brings {brought}; an arm may bring propose, verify and observe alone, so join that method to the whole "
        "recipe with '+' or leave it out"
    )


def _check(name: str, arm: Parts) -> None:
    brought = next((seat for seat in SEATS if getattr(arm, seat)), None)
    asks: dict[str, Callable[[Parts], bool]] = {
        "a search's choice of claims": lambda parts: not parts.bonus or bool(parts.claims_per_token),
        "rows of its own": lambda parts: bool(parts.slots) or parts.together or parts.candidates > 1,
        "windows of a canvas": lambda parts: parts.reuse,
    }
    wanted = f"the seat '{brought}'" if brought else next((words for words, holds in asks.items() if holds(arm)), None)
    if wanted:
        raise _refused(name, wanted)
    if arm.verify is None:
        raise CompositionError(f"arm '{name}' brings nothing that verifies; build it with `core.build.build_parts`")
