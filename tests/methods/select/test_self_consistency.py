"""Self-consistency: votes by brute force, answers by value, ties and missing answers as the docstring defines them."""

from __future__ import annotations

import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

import treewright
from treewright import laws
from treewright.core.errors import InputError, UnknownOption
from treewright.core.selection import Candidate
from treewright.methods.select.self_consistency import Config, SelfConsistency
from treewright.parts.select.votes import LAST_NUMBER, answer_of, compiled


@pytest.mark.parametrize("weights", ["uniform", "probability", "probability_per_token"])
def test_it_selects_among_plain_samples(weights):
    assert laws.selects("self_consistency", {"candidates": 4, "weights": weights}).worst <= 1e-9


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("so 3 and 4 make 7.", "7"), ("it costs $1,250.50", "1250.5"), ("-3", "-3"), ("10", "10"), ("7.0", "7"), ("0.0", "0"),
        ("-0", "0"), ("none at all", None), ("", None), ("100", "100"), ("1,23", "23"), ("+5", "5"),
    ],
)  # fmt: skip
def test_the_last_number_by_value(text, answer):
    assert answer_of(compiled("answer", LAST_NUMBER), text) == answer


def test_a_pattern_with_a_group():
    pattern = compiled("answer", r"answer is \(?([A-D])")
    assert answer_of(pattern, "The answer is (b no: the answer is (C)") == "c"
    assert answer_of(pattern, "B") is None
    assert answer_of(compiled("answer", "x(y?)"), "x xy x") == "y"


def test_the_majority_wins_and_its_most_probable_text_is_returned(pool, chooser):
    five = pool("is 1", "so 2", "1", "it is 2", "2", logprobs=[-1.0, -9.0, -2.0, -3.0, -4.0])
    assert chooser("self_consistency")(five) == [3, 4, 1, 0, 2]


def test_a_tie_goes_to_the_answer_of_the_lowest_sample(pool, chooser):
    assert chooser("self_consistency")(pool("?", "7", "8", "8", "7", logprobs=[0, -5, -1, -1, -4]))[:2] == [4, 1]


def test_texts_without_an_answer_do_not_vote(pool, chooser):
    assert chooser("self_consistency")(pool("?", "??", "3", logprobs=[0.0, 0.0, -9.0])) == [2, 0, 1]
    assert chooser("self_consistency")(pool("?", "??", "!", logprobs=[-2.0, -1.0, -3.0])) == [1, 0, 2]


def test_cut_off_texts_vote_only_where_none_is_finished(pool, chooser):
    reasons = ["budget", "budget", "stop", "length"]
    assert chooser("self_consistency")(pool("1", "1", "2", "?", reasons=reasons))[0] == 2
    assert chooser("self_consistency")(pool("1", "1", "?", "?", reasons=reasons))[0] == 2
    assert chooser("self_consistency")(pool("3", "1", "1", "?", reasons=["budget"] * 4))[0] == 1
    assert chooser("self_consistency")(pool("?", "?", "?", "?", reasons=reasons, logprobs=[0, 0, -2.0, -1.0]))[0] == 3


@given(st.lists(st.tuples(st.integers(0, 3), st.floats(-9, 0)), min_size=1, max_size=9))
def test_votes_are_those_of_brute_force(drawn):
    candidates = [
        Candidate(sample, [sample], f"is {answer}" if answer else "?", "stop", logprob=logprob)
        for sample, (answer, logprob) in enumerate(drawn)
    ]
    for weights in ("uniform", "probability"):
        first = SelfConsistency(Config(weights=weights)).select("", candidates, {})[0]
        votes = Counter()
        for answer, logprob in drawn:
            votes[answer] += 1 if weights == "uniform" else math.exp(logprob)
        del votes[0]
        if votes:
            assert votes[drawn[first][0]] == pytest.approx(max(votes.values()))
            assert drawn[first][1] == max(logprob for answer, logprob in drawn if answer == drawn[first][0])


def test_over_all_texts_probability_votes_are_the_true_answer_probabilities(pool, chooser):
    """The most probable answer is not that of the most probable text, nor of most texts; repeated draws change nothing."""
    law = {"a 1": 0.35, "b 2": 0.3, "c 2": 0.25, "d 3": 0.04, "e 3": 0.03, "f 3": 0.03}
    texts = [*law, *["a 1"] * 4]
    logprobs = [math.log(law[text]) for text in texts]
    assert texts[chooser("self_consistency", weights="probability")(pool(*texts, logprobs=logprobs))[0]] == "b 2"
    assert texts[chooser("self_consistency")(pool(*texts, logprobs=logprobs))[0]] == "a 1"


def test_probability_per_token_does_not_favour_short_texts(pool, chooser):
    two = pool("1", "so it is 2", logprobs=[-1.0, -2.0])
    assert chooser("self_consistency", weights="probability")(two)[0] == 0
    assert chooser("self_consistency", weights="probability_per_token")(two)[0] == 1


def test_it_votes_over_the_samples_of_plain_sampling(table):
    settings = dict(max_new_tokens=5, temperature=1.0, seed=2)
    plain = treewright.generate(table(), [1, 2], n=12, **settings)
    votes = Counter(sample.text.split()[-1] for sample in plain.samples if sample.text)
    best = treewright.generate(table(), [1, 2], "self_consistency", {"candidates": 12}, **settings)
    assert votes[best.text.split()[-1]] == max(votes.values())


@pytest.mark.parametrize(
    ("options", "words"),
    [({"answer": "("}, "no regular expression"), ({"answer": "(a)(b)"}, "has 2 groups"), ({"candidates": 0}, "candidates")],
)
def test_bad_options(table, options, words):
    with pytest.raises(UnknownOption, match=words):
        treewright.generate(table(), [1], "self_consistency", options, temperature=1.0)


def test_texts_need_a_tokenizer(table):
    with pytest.raises(InputError, match=r"compares texts but model .* has no tokenizer"):
        treewright.generate(table().protocol, [1], "self_consistency", {"candidates": 2}, temperature=1.0)
