"""List operations: answers by hand, validators that know right from wrong, and a held-out part that shares no prompt."""

from __future__ import annotations

from itertools import islice
from random import Random

import pytest

from treewright.models.loading import BUNDLED
from treewright.train.list_tasks import INSTRUCTIONS, LONGEST_ANSWER, SET_VALUED, WORDS, Problem, make_problem, problems

ITEMS = ("cat", "bus", "dog")


@pytest.mark.parametrize(
    ("task", "right", "wrong"),
    [
        ("copy", ["cat bus dog"], ["cat dog bus", "cat bus", ""]),
        ("reverse", ["dog bus cat"], ["cat bus dog"]),
        ("sort", ["bus cat dog"], ["cat bus dog"]),
        ("shuffle", ["bus cat dog", "dog bus cat"], ["cat bus dog", "bus cat", "bus bus dog"]),
        ("replace_index", ["cat hat dog"], ["hat bus dog", "cat hat bus"]),
        ("replace_random", ["hat bus dog", "cat hat dog", "cat bus hat"], ["cat bus dog", "hat hat dog"]),
        ("insert_index", ["cat hat bus dog"], ["cat bus hat dog", "cat bus dog"]),
        ("insert_random", ["hat cat bus dog", "cat bus dog hat"], ["cat bus dog", "cat hat hat bus dog"]),
        ("remove_index", ["cat dog"], ["bus dog", "cat bus dog"]),
        ("remove_random", ["bus dog", "cat dog", "cat bus"], ["cat bus dog", "dog cat", "cat"]),
    ],
)
def test_answers(task: str, right: list[str], wrong: list[str]) -> None:
    problem = Problem(task, ITEMS, 2, "hat")
    assert all(problem.accepts(answer.split()) for answer in right)
    assert not any(problem.accepts(answer.split()) for answer in wrong)


def test_a_drawn_answer_is_right_and_fits() -> None:
    random = Random(1)
    for task in INSTRUCTIONS:
        for _ in range(30):
            problem = make_problem(task, random)
            answer = problem.draw(random)
            assert problem.accepts(answer) and len(answer) <= LONGEST_ANSWER
            assert problem.word not in problem.items and 1 <= problem.place <= len(problem.items)


def test_set_valued_tasks_have_several_answers() -> None:
    for task in INSTRUCTIONS:
        drawn = {tuple(Problem(task, ITEMS, 2, "hat").draw(Random(seed))) for seed in range(20)}
        assert (len(drawn) > 1) is (task in SET_VALUED)


def test_prompts_say_what_to_do() -> None:
    assert Problem("insert_index", ITEMS, 2, "hat").prompt == "List: cat bus dog\nInsert hat at 2:"


def test_training_and_held_out_problems_share_no_prompt() -> None:
    held = {problem.prompt for problem in islice(problems(Random(0), held_out=True), 100)}
    seen = {problem.prompt for problem in islice(problems(Random(0), held_out=False), 3000)}
    assert len(held) > 90 and not held & seen


def test_every_word_is_one_token() -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(BUNDLED / "default")
    assert all(len(tokenizer.encode(f" {word}")) == 1 for word in WORDS)
    assert len(set(WORDS)) == len(WORDS)
