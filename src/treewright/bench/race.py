"""The race: every contestant decodes every unit, taking turns, so that a drift of the machine meets all alike."""

from __future__ import annotations

import dataclasses
import gc
import random
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from treewright.bench.contestants import Contestant, Outcome, Setting
from treewright.bench.prompts import Prompt
from treewright.bench.statistics import Cost, repetition

SECONDS = ("seconds", "outside_seconds", "drafting_seconds", "reading_seconds")
"""What differs from repeat to repeat."""


@dataclass(frozen=True, slots=True)
class Unit:
    """Prompts that are decoded together: their numbers in the run's list, their token ids, and one domain. temperature: its own,
    whatever the run's is; None for the run's."""

    domain: str
    numbers: tuple[int, ...]
    prompts: tuple[tuple[int, ...], ...]
    temperature: float | None = None

    def setting(self, of_run: Setting) -> Setting:
        """How it is decoded in a run of this setting."""
        return of_run if self.temperature is None else dataclasses.replace(of_run, temperature=self.temperature)


@dataclass(frozen=True, slots=True)
class Result:
    """One contestant on one unit: the first repeat's outcome, all its seconds as medians over the repeats."""

    unit: Unit
    outcome: Outcome

    @property
    def seconds(self) -> float:
        return self.outcome.seconds

    @property
    def cost(self) -> Cost:
        return Cost(self.seconds, self.outcome.new_tokens)

    @property
    def repetitions(self) -> list[float]:
        """4-gram repetition of each row's new tokens."""
        return [repetition(tokens) for tokens in self.outcome.tokens]


def make_units(prompts: Sequence[Prompt], ids: Sequence[Sequence[int]], repetitions: Sequence[float], rows: int) -> list[Unit]:
    """Units of `rows` prompts of one domain, in the order of the prompts.

    In batches the prompts of a domain are put in the order of `repetitions` first (that of their greedy text), so that texts
    that loop share units and do not spoil all of them. What does not fill a unit is left out.
    """
    units = []
    for domain in dict.fromkeys(prompt.domain for prompt in prompts):
        numbers = [number for number, prompt in enumerate(prompts) if prompt.domain == domain]
        if rows > 1:
            numbers.sort(key=lambda number: repetitions[number])
        for start in range(0, len(numbers) - rows + 1, rows):
            chosen = tuple(numbers[start : start + rows])
            units.append(Unit(domain, chosen, tuple(tuple(ids[number]) for number in chosen)))
    return units


def race(
    contestants: Sequence[Contestant], units: Sequence[Unit], setting: Setting, repeats: int, warm_all: bool,
    tell: Callable[[str], None],
) -> dict[str, list[Result]]:  # fmt: skip
    """Results of every contestant on every unit.

    Before anything is timed each contestant decodes the first unit, or with `warm_all` all units, which meets every shape a
    compiled step will need. At the start of the warm-up and of each repeat all forget what they learned, so that memory is
    warmed by the run's own units, in their order, and never by an earlier reading of the same prompt.
    """
    order = random.Random(setting.seed)
    passes = []
    try:
        _pass(contestants, units if warm_all else units[:1], setting, order)
        tell("warm")
        for number in range(repeats):
            passes.append(_pass(contestants, units, setting, order))
            tell(f"repeat {number + 1} of {repeats}")
    finally:
        gc.unfreeze()
    return {
        contestant.name: [_median(unit, [done[contestant.name][index] for done in passes]) for index, unit in enumerate(units)]
        for contestant in contestants
    }


def _pass(
    contestants: Sequence[Contestant], units: Sequence[Unit], setting: Setting, order: random.Random
) -> dict[str, list[Outcome]]:  # fmt: skip
    for contestant in contestants:
        contestant.forget()
    # A collection of all that torch and transformers hold takes a third of a second, and meets one contestant by chance.
    gc.collect()
    gc.freeze()
    found: dict[str, list[Outcome]] = {contestant.name: [] for contestant in contestants}
    for turn, unit in enumerate(units):
        # Drawn, not rotated: nobody follows the same contestant each time, whose threads may still be awake.
        for contestant in order.sample(list(contestants), len(contestants)):
            found[contestant.name].append(contestant.run(unit.prompts, unit.setting(setting), setting.seed + turn))
    return found


def _median(unit: Unit, outcomes: Sequence[Outcome]) -> Result:
    seconds = {name: [getattr(outcome, name) for outcome in outcomes] for name in SECONDS}
    medians = {name: statistics.median(found) for name, found in seconds.items() if None not in found}
    return Result(unit, dataclasses.replace(outcomes[0], **medians))
