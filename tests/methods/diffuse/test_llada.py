"""LLaDA's sampler: which ranks are exact, by enumeration; its schedule; ends, lengths, stops and streams of a canvas."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest

from treewright.api import build_parts, generate
from treewright.core.errors import CapabilityError, UnknownOption
from treewright.core.recipe import Recipe
from treewright.core.request import Sampling
from treewright.core.text import Text
from treewright.models.loading import load
from treewright.models.tables import AnyOrderTable, JointTable, Table
from treewright.parts.diffuse.static import Static
from treewright.testing import laws
from treewright.testing.canvases import field_of, static_tokens
from treewright.testing.enumerate import total_variation

STATE_ONLY = ["top", "margin", "entropy", "random"]


@pytest.mark.parametrize("rank", STATE_ONLY)
def test_a_rank_of_the_state_alone_is_exact_at_one_slot_a_step(joint_of, law_of, rank):
    for seed in range(2):
        table = JointTable(2, 3, seed)
        assert total_variation(law_of(table, "llada", {"rank": rank}), joint_of(table)) < 1e-12


def test_blocks_keep_a_rank_of_the_state_exact(joint_of, law_of):
    table = JointTable(3, 3, 5)
    assert total_variation(law_of(table, "llada", {"rank": "entropy", "block": 2}), joint_of(table)) < 1e-12


def test_ranking_by_the_drawn_token_is_a_hidden_low_temperature(joint_of, law_of):
    table = JointTable(3, 3, 0)
    truth, drawn = joint_of(table), law_of(table, "llada", {})
    assert total_variation(drawn, truth) > 0.1
    likeliest = max(truth, key=truth.__getitem__)
    assert drawn[likeliest] > truth[likeliest]


def low_confidence_law(table: JointTable, tokens: int) -> dict[tuple[int, ...], float]:
    """The definition: in each state every open slot draws anew, and the `tokens` whose draws are most probable stay."""
    prompt, law = [0, 1], {}
    states = [((table.mask,) * table.slots, 1.0)]
    while states:
        canvas, chance = states.pop()
        waiting = [slot for slot in range(table.slots) if canvas[slot] == table.mask]
        if not waiting:
            law[canvas] = law.get(canvas, 0.0) + chance
            continue
        field = table.field(np.array([*prompt, *canvas]))[len(prompt) :]
        for drawn in product(range(table.vocabulary), repeat=len(waiting)):
            sure = [field[slot][token] for slot, token in zip(waiting, drawn, strict=True)]
            kept = sorted(range(len(waiting)), key=lambda index: (-sure[index], index))[:tokens]
            after = list(canvas)
            for index in kept:
                after[waiting[index]] = drawn[index]
            states.append((tuple(after), chance * math.prod(sure)))
    return law


@pytest.mark.parametrize("tokens", [1, 2])
def test_low_confidence_remasking_draws_every_slot_anew_in_each_step(law_of, tokens):
    table = JointTable(2, 3, 4)
    assert total_variation(law_of(table, "llada", {"tokens": tokens}), low_confidence_law(table, tokens)) < 1e-12


@pytest.mark.parametrize("rank", [*STATE_ONLY, "confidence"])
def test_one_step_is_the_product_of_marginals(law_of, joint_of, total_correlation, rank):
    """Kullback-Leibler divergence of a parallel step is the total correlation of its slots."""
    table = JointTable(3, 3, 2)
    at_once, truth = law_of(table, "llada", {"steps": 1, "rank": rank}), joint_of(table)
    divergence = sum(p * math.log(p / at_once[tokens]) for tokens, p in truth.items())
    assert divergence == pytest.approx(total_correlation(table.joint), abs=1e-9)


def test_two_slots_a_step_are_not_exact(joint_of, law_of):
    table = JointTable(3, 3, 0)
    for rank in STATE_ONLY:
        assert total_variation(law_of(table, "llada", {"tokens": 2, "rank": rank}), joint_of(table)) > 0.01


def test_temperature_is_of_the_slot_law(law_of):
    """One slot: the emitted law is the softmax of its logits over the temperature."""
    table = JointTable(4, 1, 3)
    sharp = table.joint ** (1 / 0.5)
    law = law_of(table, "llada", {}, temperature=0.5)
    assert [law[token,] for token in range(4)] == pytest.approx((sharp / sharp.sum()).tolist())


@pytest.mark.parametrize(("block", "tokens"), [(0, 1), (0, 3), (2, 1), (3, 2), (4, 4), (9, 2)])
def test_greedy_is_its_definition(decode, block, tokens):
    for seed in range(3):
        table = AnyOrderTable(5, seed)
        done = decode(table, "llada", [[1, 2], [3]], {"block": block, "tokens": tokens}, max_new_tokens=8)
        assert done.tokens == [static_tokens(field_of(table), 5, prompt, block, tokens, 8) for prompt in ([1, 2], [3])]


def committed(steps: int, block: int, slots: int) -> list[int]:
    """Slots filled by each step, as the schedule counts."""
    text, schedule = Text(slots + 1, blank=9), Static(block=block, steps=steps)
    text.admit([[0]], [slots + 1])
    counts = []
    while text.remaining()[0]:
        span, waiting = schedule.current(text, 0, text.of(0))
        counts.append(schedule.count(text, 0, span, len(waiting)))
        for slot in waiting[: counts[-1]]:
            text.fill(0, int(slot), 0)
    return counts


@pytest.mark.parametrize(
    ("steps", "block", "slots", "expected"),
    [
        (4, 0, 8, [2, 2, 2, 2]),
        (3, 0, 8, [3, 3, 2]),
        (4, 4, 8, [2, 2, 2, 2]),
        (5, 4, 8, [2, 1, 1, 2, 2]),
        (20, 0, 3, [1, 1, 1]),
        (1, 4, 8, [4, 4]),
        (6, 4, 10, [2, 2, 2, 2, 1, 1]),
    ],
)
def test_the_first_steps_take_what_does_not_divide(steps, block, slots, expected):
    assert committed(steps, block, slots) == expected


def test_calls_are_steps(decode):
    for steps in (1, 3, 8):
        assert decode(AnyOrderTable(4, 0), "llada", [[1]], {"steps": steps}, max_new_tokens=8).trace().model_calls == steps


def test_blocks_are_settled_from_left_to_right(decode):
    heard: list[int] = []

    class Watch:
        prompt_top = 0

        def observe(self, outcome):
            text = outcome.round.text
            heard.append(int((text.of(0)[1:5] == 5).sum() * 10 + (text.of(0)[5:] == 5).sum()))

    decode(AnyOrderTable(5, 3), "llada", [[1]], {"block": 4}, max_new_tokens=8, observers=[Watch()])
    assert heard == [34, 24, 14, 4, 3, 2, 1, 0]


def test_end_of_text_is_forbidden_before_the_least_length(decode):
    for seed in range(6):
        free = decode(AnyOrderTable(3, seed), "llada", [[1]], max_new_tokens=6, stop_ids=(0,)).tokens[0]
        kept = decode(AnyOrderTable(3, seed), "llada", [[1]], max_new_tokens=6, stop_ids=(0,), min_new_tokens=4).tokens[0]
        assert 0 not in kept[:4] and len(kept) >= 5
        assert 0 not in free[:-1]


def test_ends_last_fills_them_when_nothing_else_is_left(decode):
    filled: list[tuple[int, bool]] = []

    class Watch:
        """Notes each filled token, and whether another slot had an offer that is no end."""

        prompt_top = 0

        def observe(self, outcome):
            text, ((_, token),) = outcome.round.text, outcome.verdict.fills[0]
            others = np.flatnonzero(text.of(0) == text.blank).tolist()
            offers = outcome.round.answers["target"].field.logits(0, 0, others).argmax(-1) if others else []
            filled.append((token, any(offer != 0 for offer in offers)))

    for ends_last in (False, True):
        filled.clear()
        for seed in range(8):
            options = {"ends_last": ends_last}
            decode(AnyOrderTable(2, seed), "llada", [[1]], options, max_new_tokens=7, stop_ids=(0,), observers=[Watch()])
        assert 0 in [token for token, _ in filled]
        assert any(token == 0 and better for token, better in filled) is not ends_last


def test_the_sampling_law_holds_in_every_slot(decode):
    """top-k 1 is greedy; a bias of -inf forbids a token; a presence penalty makes tokens rarer."""
    table = AnyOrderTable(5, 4)
    greedy = decode(table, "llada", [[1]], max_new_tokens=8).tokens
    assert decode(table, "llada", [[1]], max_new_tokens=8, sampling=Sampling(1.0, top_k=1)).tokens == greedy
    never = decode(table, "llada", [[1]], max_new_tokens=8, sampling=Sampling(logit_bias=((greedy[0][0], -1e9),))).tokens
    assert greedy[0][0] not in never[0]
    apart = decode(table, "llada", [[1]], max_new_tokens=4, sampling=Sampling(presence_penalty=1e3)).tokens[0]
    assert len(set(apart)) == 4


def test_samples_of_a_prompt_differ_and_repeat_with_the_seed(decode):
    def run(seed):
        return decode(AnyOrderTable(5, 0), "llada", [[1]], max_new_tokens=6, samples=3, seed=seed, sampling=Sampling(1.0)).rows

    assert run(1) == run(1) != run(2)
    assert len({tuple(tokens) for tokens in run(1).values()}) == 3


def test_it_keeps_the_rules_of_a_canvas():
    for options in ({}, {"block": 3, "tokens": 2}, {"rank": "random"}, {"rank": "margin", "ends_last": True}):
        assert laws.fills_canvas("llada", options, seeds=1).total("rounds") > 1


def test_a_left_to_right_model_is_refused():
    with pytest.raises(CapabilityError, match="method 'llada' needs any_order, which model 'Table' does not have"):
        generate(load(Table(4, 0)), [1], "llada")


@pytest.mark.parametrize(
    "options", [{"block": -1}, {"tokens": 0}, {"steps": -1}, {"rank": "surest"}], ids=lambda options: next(iter(options))
)
def test_bad_options_are_one_sentence(options):
    with pytest.raises(UnknownOption, match=f"option 'llada.{next(iter(options))}'"):
        build_parts(Recipe.of("llada", options))


def test_conditionals_of_a_joint_table_are_those_of_its_joint():
    table = JointTable(3, 2, 0)
    known = table.field(np.array([0, 1, 3]))
    assert np.allclose(known[2], table.joint[1] / table.joint[1].sum())
    assert np.allclose(table.field(np.array([0, 3, 3]))[1], table.joint.sum(axis=1))
