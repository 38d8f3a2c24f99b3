"""Budgets, cancellation, dead ends, the model's context: how a run ends that was not stopped by its own text."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import numpy as np
import pytest

from treewright.core.errors import ContextError
from treewright.core.request import Budget, Request, Sampling
from treewright.core.roles import Parts
from treewright.engine.loop import Engine, Run
from treewright.models.tables import Table
from treewright.parts.verify.sample_then_match import SampleThenMatch

PROMPTS = [[1, 2], [3], [0, 4, 4], [2, 2], [4]]


def ends(engine: Engine) -> dict[tuple[int, int], tuple[str | None, int]]:
    return {key: (row.finish, len(row.tokens)) for key, row in sorted(engine.finished.items())}


@pytest.mark.parametrize("drafts", [None, 4])
def test_a_budget_of_tokens_is_for_each_row(play, drafts: int | None) -> None:
    engine = play(Table(5, seed=1), PROMPTS, drafts=drafts, max_new_tokens=9, budget=Budget(tokens=6), batch_rows=2)
    assert set(ends(engine).values()) == {("budget", 6)}
    roomy = play(Table(5, seed=1), PROMPTS, drafts=drafts, max_new_tokens=9, budget=Budget(tokens=9))
    assert set(ends(roomy).values()) == {("length", 9)}


def test_a_budget_of_model_calls_is_for_the_run(play) -> None:
    engine = play(Table(5, seed=1), PROMPTS, max_new_tokens=9, budget=Budget(model_calls=4), batch_rows=2)
    assert engine._meter.target_calls == 4
    # Samples that still waited never get a row, and end as well.
    assert list(ends(engine).values()) == [("budget", 4), ("budget", 4), ("budget", 0), ("budget", 0), ("budget", 0)]
    assert [engine.traces[prompt, 0].model_calls for prompt in range(5)] == [4, 4, 0, 0, 0]


def test_a_budget_of_seconds_goes_by_the_clock_it_is_given(play, toys) -> None:
    now = [100.0]

    def clock() -> float:
        now[0] += 0.25
        return now[0]

    notes = toys.Notes()
    settings = dict(max_new_tokens=90, budget=Budget(seconds=5.0), clock=clock, batch_rows=2)
    engine = play(Table(5, seed=1), PROMPTS[:3], notes=notes, **settings)
    reasons, lengths = zip(*ends(engine).values(), strict=True)
    assert set(reasons) == {"budget"} and lengths[2] == 0 and 10 <= lengths[0] <= 20
    assert sorted(notes.ended) == [(0, 0), (1, 0), (2, 0)]
    assert 4.0 <= engine.traces[0, 0].seconds <= 6.0


def test_closing_the_iterator_cancels_what_is_left() -> None:
    request = Request(prompts=tuple(map(tuple, PROMPTS)), max_new_tokens=9, batch_rows=2)
    engine = Engine(Run(request, {"target": Table(5, seed=1)}, Parts(verify=SampleThenMatch())))
    rounds = engine.run()
    for _ in range(3):
        next(rounds)
    rounds.close()
    assert list(ends(engine).values()) == [("cancelled", 3), ("cancelled", 3)] + [("cancelled", 0)] * 3
    assert engine.traces[0, 0].model_calls == 3


def test_a_listener_cancels_its_row_and_no_other(play, toys) -> None:
    class Impatient(toys.Notes):
        def hear(self, prompt: int, sample: int, tokens: list[int], piece: str, finished: bool) -> bool:
            return super().hear(prompt, sample, tokens, piece, finished) and (prompt != 1 or len(self.tokens[1, 0]) < 4)

    alone = play(Table(5, seed=1), PROMPTS, max_new_tokens=9)
    notes = Impatient()
    engine = play(Table(5, seed=1), PROMPTS, max_new_tokens=9, notes=notes)
    assert ends(engine)[1, 0] == ("cancelled", 4)
    assert {key: row.tokens for key, row in engine.finished.items() if key != (1, 0)} == {
        key: row.tokens for key, row in alone.finished.items() if key != (1, 0)
    }


def test_an_error_in_a_part_reaches_the_caller_and_keeps_what_was_decoded() -> None:
    class Fails(SampleThenMatch):
        def verify(self, round: Any, law: Any) -> Any:
            if round.number == 2:
                raise RuntimeError("the third round")
            return super().verify(round, law)

    engine = Engine(Run(Request(prompts=((1,),)), {"target": Table(5, seed=1)}, Parts(verify=Fails())))
    with pytest.raises(RuntimeError, match="the third round"):
        list(engine.run())
    assert ends(engine) == {(0, 0): ("cancelled", 2)}


class Fence:
    """A constraint that lets a row take `tokens` tokens and then nothing; the rows of other prompts are free."""

    def __init__(self, tokens: int) -> None:
        self.tokens = tokens

    def mask(self, row: Hashable, continuation: np.ndarray) -> np.ndarray:
        return np.full(5, row[0] != 1 or len(continuation) < self.tokens)  # type: ignore[index]


@pytest.mark.parametrize("drafts", [None, 6])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_dead_end_ends_its_row_after_what_was_accepted(play, toys, drafts: int | None, temperature: float) -> None:
    table, notes = Table(5, seed=1), toys.Notes()
    settings = dict(drafts=drafts, sampling=Sampling(temperature), max_new_tokens=9, seed=4)
    free = play(table, PROMPTS, **settings)
    engine = play(table, PROMPTS, parts=Parts(verify=SampleThenMatch(), constrain=(Fence(4),)), notes=notes, **settings)
    assert ends(engine)[1, 0] == ("dead_end", 4) and (1, 0) in notes.ended
    assert engine.finished[1, 0].tokens == free.finished[1, 0].tokens[:4] == notes.emitted[1, 0]
    others = [key for key in free.finished if key != (1, 0)]
    assert all(engine.finished[key].tokens == free.finished[key].tokens for key in others)


def test_a_dead_end_at_once_leaves_nothing(play) -> None:
    engine = play(Table(5, seed=1), PROMPTS, parts=Parts(verify=SampleThenMatch(), constrain=(Fence(0),)), logprobs=True)
    row = engine.finished[1, 0]
    assert (row.finish, row.tokens, row.logprobs) == ("dead_end", [], [])


@pytest.mark.parametrize("drafts", [None, 6])
def test_a_row_ends_with_the_models_positions(play, drafts: int | None) -> None:
    table = Table(5, seed=1)
    free = play(table, PROMPTS, max_new_tokens=20)
    table.capabilities = table.capabilities.__class__(vocabulary=5, max_length=10)
    engine = play(table, PROMPTS, drafts=drafts, max_new_tokens=20)
    for prompt, ids in enumerate(PROMPTS):
        assert ends(engine)[prompt, 0] == ("length", 10 - len(ids))
        assert engine.finished[prompt, 0].tokens == free.finished[prompt, 0].tokens[: 10 - len(ids)]


def test_a_prompt_has_to_leave_room_for_one_token(play) -> None:
    table = Table(5, seed=1)
    table.capabilities = table.capabilities.__class__(vocabulary=5, max_length=4)
    assert ends(play(table, [[1, 2, 3]])) == {(0, 0): ("length", 1)}
    with pytest.raises(ContextError, match="prompt 1 has 4 tokens as model 'target' reads it, which has 4 positions"):
        play(table, [[1, 2], [1, 2, 3, 4]])
