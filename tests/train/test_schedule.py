"""The warm-up, stable, decay schedule and its changes of plan."""

from __future__ import annotations

import pytest

from treewright.train.schedule import Schedule


def test_the_three_parts():
    schedule = Schedule.for_budget(1000, 100, 0.2)
    assert schedule.scale(0) == pytest.approx(0.01)
    assert schedule.scale(49) == pytest.approx(0.5)
    assert schedule.scale(99) == schedule.scale(500) == schedule.scale(799) == 1
    assert schedule.scale(900) == pytest.approx(0.5)
    assert schedule.scale(1000) == schedule.scale(2000) == 0


def test_warm_up_takes_at_most_a_tenth_of_the_budget():
    assert Schedule.for_budget(1000, 10**6, 0.2).warm_up == 100
    assert Schedule(0, 5, 10).scale(0) == 1


def test_another_budget_never_decays_in_the_past():
    schedule = Schedule.for_budget(1000, 100, 0.2)
    assert schedule.with_budget(2000, 0.2, 300).decay_start == 1600
    assert schedule.with_budget(400, 0.5, 300) == Schedule(100, 300, 400)
    with pytest.raises(ValueError, match="budget 300 is already spent"):
        schedule.with_budget(300, 0.2, 300)


def test_finishing_lasts_a_quarter_of_what_was_done_or_what_is_asked():
    schedule = Schedule.for_budget(1000, 100, 0.2)
    assert schedule.finish_now(400) == Schedule(100, 400, 500)
    assert schedule.finish_now(400, 30) == Schedule(100, 400, 430)
    assert schedule.finish_now(900) is schedule


@pytest.mark.parametrize(("total", "share"), [(0, 0.2), (100, 0.0), (100, 1.0)])
def test_impossible_budgets(total: int, share: float):
    with pytest.raises(ValueError, match="not possible"):
        Schedule.for_budget(total, 10, share)


def test_a_schedule_without_decay_is_an_error():
    with pytest.raises(ValueError, match="no decay"):
        Schedule(0, 10, 10)
