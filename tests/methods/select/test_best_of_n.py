"""Best-of-n: the largest score wins, of every kind of judge; likelihood is the model's own; errors say what is missing."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest

import treewright
from treewright import laws
from treewright.core.errors import InputError, UnknownOption

SETTINGS = dict(max_new_tokens=6, temperature=1.0, seed=5)


def judged(score):
    return SimpleNamespace(score=lambda prompt, texts: [score(prompt, text) for text in texts])


@pytest.mark.parametrize("options", [{"candidates": 4}, {"by": "likelihood", "candidates": 4, "per_token": False}])
def test_it_selects_among_plain_samples(options):
    assert laws.selects("best_of_n", options).worst <= 1e-9


def test_the_largest_score_wins_and_a_tie_goes_to_the_lowest_sample(pool, chooser):
    scores = {"a": 0.0, "b": 2.0, "c": -math.inf, "d": 2.0}
    found = chooser("best_of_n")(pool("a", "b", "c", "d"), reward=judged(lambda prompt, text: scores[text]))
    assert found == [1, 3, 0, 2]


def test_what_was_cut_off_comes_last_however_good(pool, chooser):
    cut = pool("aaa", "b", "cccc", "dd", reasons=["budget", "stop", "dead_end", "length"])
    assert chooser("best_of_n")(cut, reward=judged(lambda prompt, text: len(text))) == [3, 1, 2, 0]
    assert chooser("best_of_n")(pool("a", "bb", reasons=["budget"] * 2), reward=judged(lambda p, t: len(t))) == [1, 0]


def test_likelihood_in_all_and_per_token(pool, chooser):
    two = pool("abcd", "a", logprobs=[-2.0, -1.0])
    assert chooser("best_of_n", by="likelihood", per_token=False)(two) == [1, 0]
    assert chooser("best_of_n", by="likelihood")(two) == [0, 1]


def test_the_likelihood_is_that_of_the_model_at_temperature_one(table):
    """The chosen sample is the most probable of the very samples that plain sampling draws with the same seed."""
    model, settings = table(), {**SETTINGS, "temperature": 0.7, "top_k": 3}
    plain = treewright.generate(model, [[1, 2], [3]], n=6, logprobs=True, **settings)
    ours = treewright.generate(
        model, [[1, 2], [3]], "best_of_n", {"candidates": 6, "by": "likelihood", "per_token": False}, n=6, **settings
    )
    for mine, theirs in zip(ours, plain, strict=True):
        best = sorted(theirs.samples, key=lambda sample: -sum(sample.logprobs))
        assert [sample.tokens for sample in mine.samples] == [sample.tokens for sample in best]


def test_the_law_of_the_choice_and_how_far_it_is_from_plain_sampling(laws_of):
    """E[max] from the distribution function of the scores, and the bound log n - (n - 1)/n on the divergence."""

    def score(prompt, text):
        return float(len(text.split()) + 3 * text.count("1"))

    alone, found = laws_of("best_of_n", {}, {"reward": judged(score)})
    scores = {tokens: score("", " ".join(map(str, tokens[:-1] if tokens[-1] == 2 else tokens))) for tokens in alone}
    levels = sorted({scores[tokens] for tokens in alone})
    below = [sum(p for tokens, p in alone.items() if scores[tokens] <= level) for level in levels]
    expected = sum(level * (upper**2 - lower**2) for level, upper, lower in zip(levels, below, [0.0, *below], strict=False))
    assert sum(p * scores[tokens] for tokens, p in found.items()) == pytest.approx(expected, abs=1e-12)
    assert expected > sum(p * scores[tokens] for tokens, p in alone.items()) + 0.5
    divergence = sum(p * math.log(p / alone[tokens]) for tokens, p in found.items())
    assert 0.05 < divergence <= math.log(2) - 1 / 2


def test_n_are_the_best_in_order_and_one_candidate_is_plain_sampling(table):
    options, models = {"candidates": 5}, {"reward": lambda prompt, text: len(text)}
    best = treewright.generate(table(), [1, 2], "best_of_n", options, models, n=3, **SETTINGS)
    lengths = [len(sample.text) for sample in best.samples]
    assert lengths == sorted(lengths, reverse=True) and len(lengths) == 3 and best.text == best.samples[0].text
    assert len(best.trace.notes["selection"]["order"]) == 5 and best.trace.notes["selection"]["given_up"] == 0
    one = treewright.generate(table(), [1, 2], "best_of_n", {"candidates": 1}, models, **SETTINGS)
    assert one.tokens == treewright.generate(table(), [1, 2], **SETTINGS).tokens
    greedy = treewright.generate(table(), [1, 2], "best_of_n", {"candidates": 1}, models, max_new_tokens=4)
    assert greedy.tokens == treewright.generate(table(), [1, 2], max_new_tokens=4).tokens


def test_calls_are_those_until_the_last_candidate_has_ended(table):
    """The chosen text is the shortest; what the others took still counts."""
    models = {"reward": lambda prompt, text: -len(text)}
    settings = dict(max_new_tokens=20, temperature=1.0, seed=5)
    best = treewright.generate(table(), [1, 2], "best_of_n", {"candidates": 6}, models, **settings)
    plain = treewright.generate(table(), [1, 2], n=6, **settings)
    lengths = [len(sample.tokens) for sample in plain.samples]
    assert len(best.tokens) == min(lengths) < max(lengths) == best.trace.model_calls
    assert best.trace.notes["selection"]["tokens"] == sum(lengths)


def test_a_judge_sees_the_prompt_and_the_continuation(table):
    seen = []
    models = {"reward": lambda prompt, text: seen.append((prompt, text)) or 0.0}
    found = treewright.generate(table(), [1, 2], "best_of_n", {"candidates": 2}, models, n=2, **SETTINGS)
    assert seen == [("1 2", sample.text) for sample in found.samples]


@pytest.mark.parametrize(
    ("options", "models", "words"),
    [
        ({}, {}, "method 'best_of_n' needs a judge for the role 'reward'"),
        ({}, {"reward": 3}, "the role 'reward' is a int; give a function"),
        ({}, {"reward": lambda prompt, text: math.nan}, "gave nan for the text"),
        ({}, {"reward": SimpleNamespace(score=lambda prompt, texts: [0.0])}, "gave 1 scores for 8 texts"),
        ({"by": "likelihood"}, {"reward": len}, r"role 'reward'; roles used: reward \(where by is 'reward'\)"),
    ],
)
def test_judges_that_are_missing_wrong_or_not_asked_for(table, options, models, words):
    with pytest.raises(InputError, match=words):
        treewright.generate(table(), [1, 2], "best_of_n", options, models, **SETTINGS)


def test_what_cannot_be_chosen_is_refused(table):
    likely = {"by": "likelihood", "candidates": 4}
    with pytest.raises(InputError, match=r"temperature is 0 .* 4 candidates, which would all be the same text"):
        treewright.generate(table(), [1, 2], "best_of_n", likely, max_new_tokens=2)
    with pytest.raises(InputError, match=r"n is 5 .* chooses among 4 candidates"):
        treewright.generate(table(), [1, 2], "best_of_n", likely, n=5, **SETTINGS)
    with pytest.raises(InputError, match=r"role 'reward' judges texts but model .* has no tokenizer"):
        treewright.generate(table().protocol, [1, 2], "best_of_n", {}, {"reward": len}, **SETTINGS)
    with pytest.raises(UnknownOption, match=r"best_of_n.candidates"):
        treewright.generate(table(), [1, 2], "best_of_n", {"candidates": 0}, {"reward": len}, **SETTINGS)


def test_the_card_says_when_a_reward_is_needed():
    card = treewright.find("best_of_n")
    assert card.scorers_under({}) == ["reward"] and card.scorers_under({"by": "likelihood"}) == []
    assert [str(scorer) for scorer in card.scorers] == ["reward (where by is 'reward')"]
    assert not card.lossless
