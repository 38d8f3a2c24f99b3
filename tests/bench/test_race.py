"""Turns, repeats, forgetting, and the make-up of units."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from treewright.bench.contestants import Outcome, Setting
from treewright.bench.prompts import Prompt
from treewright.bench.race import Unit, make_units, race

SETTING = Setting(0.0, 1, 4, 10, True)


@dataclass
class Scripted:
    """A contestant whose seconds are given, which writes down when it was called."""

    name: str
    log: list[tuple[str, Any]]
    seconds: list[float]
    runs: int = 0
    method: str = "plain"
    options: dict[str, Any] = field(default_factory=dict)
    peer: bool = False
    lossless: bool = True
    roles: set[str] = field(default_factory=set)

    def supports(self, rows: int) -> bool:
        return True

    def forget(self) -> None:
        self.log.append((self.name, "forget"))

    def run(self, prompts: Sequence[Sequence[int]], setting: Setting, seed: int) -> Outcome:
        self.log.append((self.name, (prompts[0][0], seed)))
        seconds = self.seconds[self.runs]
        self.runs += 1
        return Outcome(
            [[self.runs] * 4 for _ in prompts], seconds, 4, 0, 4, seconds / 2, seconds / 4, reading_seconds=seconds / 8
        )


def units(count: int) -> list[Unit]:
    return [Unit("prose", (number,), ((number,),)) for number in range(count)]


def test_contestants_take_turns_and_forget_before_each_pass() -> None:
    log: list[tuple[str, Any]] = []
    contestants = [Scripted("a", log, [1.0] * 30), Scripted("b", log, [1.0] * 30)]
    race(contestants, units(12), SETTING, repeats=1, warm_all=False, tell=lambda step: None)
    forgotten = [("a", "forget"), ("b", "forget")]
    assert log[:2] == log[4:6] == forgotten and {what for _, what in log[2:4]} == {(0, 10)}
    turns = [log[place : place + 2] for place in range(6, len(log), 2)]
    assert [{what for _, what in turn} for turn in turns] == [{(number, 10 + number)} for number in range(12)]
    first = [turn[0][0] for turn in turns]
    assert set(first) == {"a", "b"} and first != ["a", "b"] * 6, "drawn, so that nobody always follows the same contestant"


def test_seconds_are_medians_over_repeats_and_the_warm_up_does_not_count() -> None:
    alone = Scripted("a", [], [99.0, 99.0, 3.0, 10.0, 1.0, 30.0, 2.0, 20.0])
    found = race([alone], units(2), SETTING, repeats=3, warm_all=True, tell=lambda step: None)["a"]
    assert [result.seconds for result in found] == [2.0, 20.0]
    assert [result.outcome.outside_seconds for result in found] == [1.0, 10.0]
    assert [result.outcome.drafting_seconds for result in found] == [0.5, 5.0]
    assert [result.outcome.reading_seconds for result in found] == [0.25, 2.5]
    assert [result.outcome.tokens for result in found] == [[[3] * 4], [[4] * 4]]
    assert (found[0].cost.seconds, found[0].cost.tokens) == (2.0, 4)


def test_units_hold_prompts_of_one_domain_and_loops_stay_together() -> None:
    prompts = [Prompt("prose", str(n), "") for n in range(5)] + [Prompt("sql", str(n), "") for n in range(2)]
    ids = [[n] for n in range(7)]
    repetitions = [0.9, 0.1, 0.8, 0.0, 0.2, 0.5, 0.4]
    assert [unit.numbers for unit in make_units(prompts, ids, repetitions, 2)] == [(3, 1), (4, 2), (6, 5)]
    assert make_units(prompts, ids, repetitions, 2)[0] == Unit("prose", (3, 1), ((3,), (1,)))
    assert [unit.numbers for unit in make_units(prompts, ids, repetitions, 1)] == [(n,) for n in range(7)]
