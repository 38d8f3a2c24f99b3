"""Diverse beam search against its definition and its identities."""

from __future__ import annotations

import pytest

from treewright import laws
from treewright.core.errors import InputError

FORMS = [
    {"groups": 4},
    {"beams": 6, "groups": 2, "strength": 3.0},
    {"beams": 3, "groups": 3, "strength": 0.2, "early_stopping": True},
    {"beams": 6, "groups": 3, "length_penalty": 0.0, "early_stopping": "never"},
]


@pytest.mark.parametrize("options", FORMS, ids=str)
def test_equals_groups_by_definition(options):
    assert laws.equals_beam_in_groups("diverse_beam", options).total("outcomes") > 20


@pytest.mark.parametrize("strength", [0.0, 2.0])
def test_one_group_is_beam_search(search, answers, tiny, strength):
    laws.equals_beam("diverse_beam", {"groups": 1, "strength": strength})
    model = tiny("gpt2", "float64")
    ours = search(model, "diverse_beam", {"groups": 1, "strength": strength}, n=4)
    assert [answers(result) for result in ours] == [answers(result) for result in search(model, "beam", n=4)]


def test_the_first_group_is_narrower_beam_search(search, answers):
    for ours, beam in zip(search(7, "diverse_beam", {"groups": 2}, n=4), search(7, "beam", {"beams": 2}, n=2), strict=True):
        assert set(answers(beam)) <= set(answers(ours))


def test_a_great_strength_makes_every_step_differ(search):
    for result in search(5, "diverse_beam", {"beams": 4, "groups": 4, "strength": 50.0}, n=4):
        texts = [sample.tokens for sample in result.samples]
        assert len(texts) == 4 and all(len(set(step)) == 4 for step in zip(*texts, strict=True))


def test_a_small_strength_repeats_texts_and_they_are_given_once(search):
    result = search(7, "diverse_beam", {"beams": 4, "groups": 2, "strength": 1e-9}, n=4)[0]
    assert len(result.samples) == 2 and result.trace.notes["selection"]["missing"] == 2


def test_nothing_is_missing_where_all_texts_differ(search):
    result = search(5, "diverse_beam", {"beams": 4, "groups": 4, "strength": 50.0}, n=4)[0]
    assert len(result.samples) == 4 and "missing" not in result.trace.notes["selection"]


def test_a_batch_is_its_rows_alone(search, answers, tiny):
    model = tiny("llama", "float64")
    together = search(model, "diverse_beam", n=4)
    assert answers(together[1]) == answers(search(model, "diverse_beam", n=4, prompts=[[7, 1, 30, 12]])[0])


@pytest.mark.parametrize(
    ("options", "named"), [({"groups": 3}, "groups' is 3"), ({"strength": 0.0}, "strength' is 0"), ({"beams": 0}, "beams' is 0")]
)
def test_bad_options_are_refused(search, options, named):
    with pytest.raises(InputError, match=named):
        search(1, "diverse_beam", options)
