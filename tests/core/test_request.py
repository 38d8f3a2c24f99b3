"""What may be asked: every refused value is named, with what is allowed."""

from __future__ import annotations

import math

import pytest

from treewright.core.errors import InputError
from treewright.core.request import Budget, Request, Sampling


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (dict(temperature=-0.5), r"temperature is -0.5; allowed: a number >= 0"),
        (dict(temperature=math.nan), r"temperature is nan"),
        (dict(temperature=math.inf), r"temperature is inf"),
        (dict(top_k=0), r"top_k is 0; allowed: an integer >= 1"),
        (dict(top_p=0.0), r"top_p is 0.0; allowed: a number in \(0, 1\]"),
        (dict(top_p=1.5), r"top_p is 1.5"),
        (dict(min_p=-0.1), r"min_p is -0.1"),
        (dict(typical_p=2), r"typical_p is 2"),
        (dict(repetition_penalty=0), r"repetition_penalty is 0; allowed: a number > 0"),
    ],
)
def test_sampling_refuses(wrong: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Sampling(**wrong)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (dict(prompts=()), r"prompts is \[\]; allowed: at least one prompt"),
        (dict(prompts=((1,), ())), r"prompt 1 is empty \(0 tokens\)"),
        (dict(max_new_tokens=0), r"max_new_tokens is 0; allowed: an integer >= 1"),
        (dict(min_new_tokens=200), r"min_new_tokens is 200; allowed: an integer from 0 to max_new_tokens \(128\)"),
        (dict(min_new_tokens=-1), r"min_new_tokens is -1"),
        (dict(samples=0), r"n is 0; allowed: an integer >= 1"),
        (dict(batch_rows=0), r"batch_rows is 0"),
        (dict(stop=("a", "")), r"stop is \"\"; allowed: strings of at least one character"),
    ],
)
def test_a_request_refuses(wrong: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Request(**({"prompts": ((1,),)} | wrong))


@pytest.mark.parametrize("name", ["tokens", "model_calls", "seconds"])
def test_a_budget_refuses_nothing_at_all(name: str) -> None:
    with pytest.raises(InputError, match=f"budget {name} is 0; allowed: a number > 0"):
        Budget(**{name: 0})


def test_ends_are_stop_ids_and_those_of_the_model_unless_they_are_ignored() -> None:
    assert Request(((1,),), stop_ids=(3,), eos_ids=(7, 8)).ends == {3, 7, 8}
    assert Request(((1,),), stop_ids=(3,), eos_ids=(7, 8), ignore_eos=True).ends == {3}


def test_only_penalties_need_the_history() -> None:
    assert not Sampling(1.0, 5, 0.9, 0.1, 0.9, logit_bias=((1, 2.0),)).history
    assert all(Sampling(**{name: 1.5}).history for name in ("repetition_penalty", "presence_penalty", "frequency_penalty"))
    assert Sampling(0.0).greedy and not Sampling(0.1).greedy
