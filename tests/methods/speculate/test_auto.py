"""Auto: how it divides columns among rows, when it drafts nothing, and that it never changes a text."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import numpy as np
import pytest

from treewright.core.request import Sampling
from treewright.methods.speculate.auto import Auto, Config
from treewright.models.tables import Table
from treewright.parts.control.cost import PROBE, RoundCost
from treewright.parts.control.rest import Rest
from treewright.parts.propose.guess_kernels import SHARES


def costing(round, **seconds_of):
    cost = RoundCost()
    for size, seconds in seconds_of.items():
        for _ in range(31):
            cost.update(int(size[1:]), seconds)
    round.memories.model(("auto", "cost", round.rows), lambda: cost)


@pytest.fixture
def free_claims(monkeypatch):
    """Rounds of any size cost the same and nothing is lost: a test must not depend on how fast the machine was."""
    monkeypatch.setattr(RoundCost, "at", lambda cost, claims: 1.0)
    monkeypatch.setattr(Rest, "judge", lambda rest, gain, rows: None)


def sure(guesser_of, round, path):
    """Teaches that these tokens follow one another."""
    store, likely = guesser_of(round).successors, np.array([[SHARES - 1]], np.uint8)
    for before, after in itertools.pairwise(path):
        store.learn(np.array([before]), np.array([before]), np.array([-1]), np.array([[after]]), likely)


def test_a_long_tree_where_claims_are_cheap_and_none_where_they_are_dear(round_of):
    for dear, least, most in ((0.0, 4, 17), (2.0, 1, 1)):
        method, round = Auto(Config(nodes=16)), round_of([[1]], claims=64)
        sure(method._guesser, round, range(1, 40))
        costing(round, _1=1.0, _16=1.0 + 15 * dear)
        method.propose(round)
        assert least <= round.forest.columns <= most


def test_rows_share_the_width_and_keep_trees_of_their_own(round_of):
    method, round = Auto(Config()), round_of([[1], [90]], claims=32)
    sure(method._guesser, round, range(1, 40))
    costing(round, _1=1.0, _32=1.05)
    method.propose(round)
    assert round.forest.token[0, 1:4].tolist() == [2, 3, 4]
    assert (round.forest.token[1, 1:] == -1).all()


def test_no_claim_is_deeper_than_the_text_may_be(round_of):
    method, round = Auto(Config()), round_of([[1]], claims=32, room=3)
    sure(method._guesser, round, range(1, 40))
    costing(round, _1=1.0, _32=1.0)
    method.propose(round)
    assert round.forest.shape.depth.max() <= 2


def test_what_a_rest_passed_over_is_caught_up_with(round_of):
    method, round = Auto(Config()), round_of([[1, 2]], claims=32, room=9)
    writing = method._writing(round, 0)
    round.text.append(0, [3, 4, 5])
    assert method._writing(round, 0, new=1) is writing and writing.tokens.tolist() == [1, 2, 3, 4]
    assert method._writing(round, 0) is writing and writing.tokens.tolist() == [1, 2, 3, 4, 5]


def test_a_round_without_claims_is_tried_now_and_then(decode):
    target = Table(6, seed=0, sharpness=8)
    widths = []
    watch = SimpleNamespace(prompt_top=0, read_prompts=None, observe=lambda outcome: widths.append(outcome.round.forest.columns))
    decode(target, "auto", [[1, 2]], {"nodes": 2}, observers=[watch], max_new_tokens=900, memories={})
    alone = [place for place, width in enumerate(widths) if width == 1]
    assert len(widths) >= 300 and max(np.diff([0, *alone, len(widths)])) <= PROBE + 1


@pytest.mark.usefixtures("free_claims")
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_texts_are_those_of_plain_decoding_alone_and_in_a_batch(decode, temperature):
    target = Table(9, seed=3, sharpness=2.5)
    prompts = [[1, 2, 3], [4], [5, 5, 1, 2, 5, 5]]
    plain = decode(target, "plain", prompts, max_new_tokens=60, sampling=Sampling(temperature)).tokens
    found = decode(target, "auto", prompts, max_new_tokens=60, sampling=Sampling(temperature))
    assert found.tokens == plain and found.accepted() > 10
    alone = [decode(target, "auto", [prompt], max_new_tokens=60, sampling=Sampling(temperature)).tokens[0] for prompt in prompts]
    assert temperature or alone == plain


@pytest.mark.usefixtures("free_claims")
def test_what_was_learned_stays_with_the_model(decode):
    target, memories = Table(30, seed=5, sharpness=6), {}
    first = decode(target, "auto", [[1, 2, 3]], max_new_tokens=80, memories=memories)
    second = decode(target, "auto", [[1, 2, 3]], max_new_tokens=80, memories=memories)
    assert second.tokens == first.tokens and second.rounds() <= first.rounds()


@pytest.mark.usefixtures("free_claims")
def test_a_text_that_repeats_itself_takes_few_rounds(decode):
    target = Table(5, seed=1, order=1, sharpness=9)
    assert decode(target, "auto", [[1]], max_new_tokens=200).rounds() < 60


def test_without_adapting_every_round_has_as_many_claims_as_there_are(decode):
    target, widths = Table(9, seed=3, sharpness=2.5), []
    watch = SimpleNamespace(prompt_top=0, read_prompts=None, observe=lambda outcome: widths.append(outcome.round.forest.columns))
    found = decode(target, "auto", [[1, 2, 3]], {"nodes": 5, "adapt": False}, observers=[watch], max_new_tokens=40)
    assert found.tokens == decode(target, "plain", [[1, 2, 3]], max_new_tokens=40).tokens
    assert max(widths) == 6 and widths.count(6) > 0.6 * len(widths)
