"""The sketchpad: rows of their own, noise of its own for each node, and a commit that keeps what was asked."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from treewright.api import generate
from treewright.core.claims import ABSENT, Law
from treewright.core.randomness import Keyed
from treewright.core.request import Sampling
from treewright.core.session import Opening
from treewright.models.causal_session import CausalSession
from treewright.models.loading import load
from treewright.models.tables import Table
from treewright.ops.warp import probabilities
from treewright.parts.propose.growth import BestFirst, ask_level, best_children
from treewright.parts.propose.sketchpad import Sketchpad

TEXTS = [[1, 0], [2, 3, 1], [3]]


class Everywhere(Table):
    """One law at every place."""

    def logits(self, prefix):
        return np.array([1.0, 0.5, 0.0, -0.5, -1.0])


@pytest.fixture
def pad_of(round_of):
    """pad_of(capacity, remaining, temperature, table, seed): a pad on a table for three rows that may take so many more tokens;
    and the columns of each call."""

    def make(capacity=50, remaining=(9, 9, 9), temperature=0.0, table=None, seed=0):
        table, calls = table or Table(5, seed=1), []
        round = round_of(TEXTS, vocabulary=5)
        round.text.limit[:] = round.text.length + np.array(remaining)
        sampling = Sampling(temperature)
        round.request, round.randomness = replace(round.request, sampling=sampling), Keyed(seed)
        round.draft_law = lambda logits: np.stack([probabilities(row, sampling) for row in logits])
        session = table.open(round.text, Opening(capacity, 3, 200), lambda *call: calls.append(call))
        session.admit(round.text, TEXTS)
        calls.clear()
        round.sessions = {"draft": session}
        return Sketchpad(round, "draft", capacity), calls

    return make


def test_rows_grow_other_trees_and_every_answer_is_their_own(pad_of):
    table = Table(5, seed=1)
    pad, calls = pad_of(table=table)
    pad.score()
    nodes = [pad.rows[0].insert([4, 3]), pad.rows[1].insert([2]), 0]
    pad.rows[1].insert([0, 0, 0])
    for row, node in enumerate(nodes):
        pad.ask(row, node)
    assert not pad.answered(0, nodes[0])
    pad.score()
    assert len(calls) == 2 and pad.room(0) == 50 - 3
    for row, (text, node) in enumerate(zip(TEXTS, nodes, strict=True)):
        assert pad.answered(row, node)
        assert pad.logits(row, node) == pytest.approx(table.logits([*text, *pad.rows[row].path(node)]))
    assert not pad.answered(1, pad.rows[1].insert([0]))
    pad.score()
    assert len(calls) == 2


def test_a_full_pad_says_so(pad_of):
    pad, _ = pad_of(capacity=2)
    pad.ask(0, pad.rows[0].add(0, 1))
    with pytest.raises(ValueError, match="the pad has 2 columns and all are taken"):
        pad.ask(0, pad.rows[0].add(0, 2))


def test_children_come_best_first_from_rows_that_may_grow(pad_of, monkeypatch):
    """Bonus tokens take the last place, so rows with 3 and 2 tokens left may hold claims of depth 2 and 1."""
    pad, _ = pad_of(remaining=(3, 2, 1))
    level = [[0], [0], [0]]
    for _ in range(3):
        ask_level(pad, level)
        level = best_children(pad, level, 2, 3)
    assert [max(sketch.depths) for sketch in pad.rows] == [2, 1, 0]
    for sketch in pad.rows:
        for node in range(1, len(sketch)):
            assert sketch.values[node] <= sketch.values[sketch.parents[node]]


def test_drawn_claims_carry_their_law_and_rows_their_own_tree(pad_of):
    pad, _ = pad_of(temperature=1.0, remaining=(9, 3, 9))
    BestFirst(pad, 4).grow()
    pad.place()
    forest = pad.round.forest
    assert forest.columns == 5 and set(forest.law[1:]) == {Law.SWOR}
    assert max(pad.rows[1].depths) <= 2
    for row, text in enumerate(TEXTS):
        for column, children in enumerate(forest.shape.children(row)):
            if [child for child in children if forest.token[row, child] != ABSENT]:
                law = np.exp(Table(5, seed=1).logits([*text, *forest.path_tokens(row, column)]))
                assert forest.q[column][row] == pytest.approx(law / law.sum())


def test_no_two_nodes_share_noise(pad_of):
    """The law is the same everywhere. Children of two siblings are as often equal as two draws are, and no draw tells another."""
    equal, pairs = 0, 600
    for seed in range(pairs // 3):
        pad, _ = pad_of(temperature=1.0, table=Everywhere(5, seed=0), seed=seed)
        pad.score()
        siblings = [[drawn[0] for _ in range(2) if (drawn := pad.draw(row, 0))] for row in range(3)]
        ask_level(pad, siblings)
        for row, nodes in enumerate(siblings):
            one, other = (pad.rows[row].tokens[pad.draw(row, node)[0]] for node in nodes)
            equal += one == other
    law = probabilities(Everywhere(5, seed=0).logits([]), Sampling(1.0))
    expected = float((law**2).sum())
    assert equal / pairs == pytest.approx(expected, abs=4 * np.sqrt(expected * (1 - expected) / pairs))


def test_what_is_drawn_does_not_depend_on_the_order_of_drawing(pad_of):
    first, _ = pad_of(temperature=1.0)
    other, _ = pad_of(temperature=1.0)
    for pad, order in ((first, (0, 1)), (other, (1, 0))):
        pad.score()
        pair = [pad.draw(0, 0)[0], pad.draw(0, 0)[0]]
        ask_level(pad, [pair, [], []])
        for which in order:
            pad.draw(0, pair[which])
            pad.draw(0, pair[which])
    assert {tuple(first.rows[0].path(node)) for node in first.rows[0].drawn} == {
        tuple(other.rows[0].path(node)) for node in other.rows[0].drawn
    }


@pytest.fixture(scope="module")
def llamas():
    config = LlamaConfig(
        vocab_size=24, hidden_size=16, intermediate_size=24, num_attention_heads=2, num_key_value_heads=1, num_hidden_layers=2,
        max_position_embeddings=128, initializer_range=0.5, eos_token_id=None,
    )  # fmt: skip
    torch.manual_seed(1)
    target, draft = LlamaForCausalLM(config).double(), LlamaForCausalLM(config).double()
    draft.load_state_dict(target.state_dict())
    with torch.no_grad():
        for weight in draft.parameters():
            weight += 0.03 * torch.randn_like(weight)
    return load(target), load(draft)


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("eagle2_tree", {"nodes": 5, "top_k": 4, "depth": 4}),
        ("opt_tree", {"nodes": 6, "threshold": 0.0, "depth": 4}),
        ("dyspec", {"budget": 6}),
        ("staged", {"nodes": 5}),
        ("rsd_s", {"width": 2, "depth": 3}),
        ("specmquant", {"chain": 3, "levels": 2, "top_k": 3, "nodes": 4}),
    ],
)
@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_what_a_model_keeps_of_its_drafts_is_what_it_would_read(method, options, temperature, llamas, monkeypatch):
    """Claims of all rounds are the same whether accepted drafts are kept as they were computed, or are all read again."""
    target, draft = llamas
    roles = {"draft": draft, "draft2": target} if method == "specmquant" else {"draft": draft}
    how = dict(models=roles, max_new_tokens=24, temperature=temperature, ignore_eos=True, seed=5)
    prompts = [[5, 9, 11], [7], [1, 2, 3, 4, 5, 6, 20]]

    def rounds():
        results = generate(target, prompts, method, options, **how)
        return [[(step.token, step.parent) for step in result.trace.steps] for result in results]

    kept = rounds()
    adopt = CausalSession.adopt
    nothing = lambda self, known: adopt(self, np.where(np.arange(known.shape[1]) > 0, -1, known))  # noqa: E731
    monkeypatch.setattr(CausalSession, "adopt", nothing)
    assert rounds() == kept
