"""FreeDave: token for token the static schedule, in the number of calls the paper says, at every temperature and rank."""

from __future__ import annotations

import pytest

from treewright.api import build_parts, generate
from treewright.core.errors import CapabilityError, UnknownOption
from treewright.core.recipe import Recipe
from treewright.core.request import Sampling
from treewright.models.loading import load
from treewright.models.tables import AnyOrderTable, JointTable, Table
from treewright.parts.diffuse.static import Static
from treewright.testing import laws
from treewright.testing.canvases import field_of, static_tokens
from treewright.testing.enumerate import total_variation

OPTIONS = [
    {}, {"drafts": 2}, {"block": 3}, {"tokens": 2}, {"tokens": 3, "block": 4}, {"rank": "random"},
    {"rank": "entropy", "block": 2},
]  # fmt: skip


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_it_equals_the_static_schedule_in_fewer_calls(options):
    report = laws.equals_static("free_dave", options, seeds=2)
    assert 0 < report.total("accepted") < report.total("proposed")


def test_ends_last_and_margins_are_the_schedules_too():
    assert laws.equals_static("free_dave", {"rank": "margin", "ends_last": True}, seeds=1).total("accepted")


def test_it_keeps_the_rules_of_a_canvas():
    for options in ({}, {"drafts": 9, "tokens": 2}):
        assert laws.fills_canvas("free_dave", options, seeds=1).total("accepted")


@pytest.mark.parametrize("drafts", [1, 2, 3, 5, 8])
def test_every_table_gives_the_static_text_within_the_papers_calls(decode, drafts):
    slots, total = 6, 0
    for seed in range(20):
        table = AnyOrderTable(3, seed, sharpness=2.5)
        done = decode(table, "free_dave", [[1]], {"drafts": drafts}, max_new_tokens=slots)
        assert done.tokens[0] == static_tokens(field_of(table), 3, [1], 0, 1, slots)
        assert 1 + -(-(slots - 1) // drafts) <= done.trace().model_calls <= slots
        total += done.trace().model_calls
    assert (total == 20 * slots) is (drafts == 1)


def test_more_drafts_never_need_more_calls(decode):
    for seed in range(10):
        calls = [
            decode(AnyOrderTable(3, seed), "free_dave", [[1]], {"drafts": drafts}, max_new_tokens=8).trace().model_calls
            for drafts in (1, 2, 4, 8)
        ]
        assert calls == sorted(calls, reverse=True)


def test_drafts_run_on_into_the_next_block(decode):
    """A law that never changes is drafted right across blocks: the fewest calls there can be."""
    flat = AnyOrderTable(3, 0)
    flat.logits = lambda canvas: AnyOrderTable(3, 1).logits(canvas * 0)
    for block in (0, 2, 3):
        assert decode(flat, "free_dave", [[1]], {"block": block, "drafts": 7}, max_new_tokens=8).trace().model_calls == 2


def test_a_full_canvas_is_nobodys_question(decode):
    done = decode(AnyOrderTable(3, 4), "free_dave", [[1]], {"drafts": 8}, max_new_tokens=6)
    assert max(call.columns for call in done.trace().calls) <= 5


def test_a_limit_on_columns_shortens_the_chain_and_keeps_the_text(decode):
    table, prompts = AnyOrderTable(4, 2), [[1], [2, 3], [0]]
    free = decode(table, "free_dave", prompts, {"tokens": 2}, max_new_tokens=7)
    for columns in (3, 6, 9):
        tight = decode(table, "free_dave", prompts, {"tokens": 2}, max_new_tokens=7, columns=columns)
        assert tight.tokens == free.tokens
        assert all(len(step.token) <= columns // 3 for step in tight.trace().steps)


def test_waiting_rows_draw_what_they_would_draw_at_once(decode):
    prompts, sampling = [[1], [2, 3], [0], [1, 1]], Sampling(0.7)
    one = decode(AnyOrderTable(4, 2), "free_dave", prompts, max_new_tokens=7, batch_rows=4, sampling=sampling)
    other = decode(AnyOrderTable(4, 2), "free_dave", prompts, max_new_tokens=7, batch_rows=2, sampling=sampling)
    assert one.tokens == other.tokens
    assert one.tokens == decode(AnyOrderTable(4, 2), "llada", prompts, max_new_tokens=7, sampling=sampling).tokens


def test_with_an_exact_rank_it_draws_from_the_joint_law(joint_of, law_of):
    table = JointTable(2, 3, 1)
    assert total_variation(law_of(table, "free_dave", {"rank": "entropy", "drafts": 2}), joint_of(table)) < 1e-12


def test_the_law_sees_a_wrong_check(monkeypatch):
    """A schedule that is a little worse at checking than at drafting does not pass."""
    right = Static.plan

    def wrong(self, round, answers, row, column, canvas, most):
        return right(self, round, answers, row, 0 if column == 2 else column, canvas, most)

    monkeypatch.setattr(Static, "plan", wrong)
    with pytest.raises((laws.LawBroken, AssertionError)):
        laws.equals_static("free_dave", seeds=3)


def test_a_left_to_right_model_is_refused():
    with pytest.raises(CapabilityError, match="method 'free_dave' needs any_order"):
        generate(load(Table(4, 0)), [1], "free_dave")


@pytest.mark.parametrize("options", [{"drafts": 0}, {"block": -1}, {"tokens": 0}, {"rank": "best"}], ids=str)
def test_bad_options_are_one_sentence(options):
    with pytest.raises(UnknownOption, match=f"option 'free_dave.{next(iter(options))}'"):
        build_parts(Recipe.of("free_dave", options))
