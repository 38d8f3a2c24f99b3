"""Draft & Verify: which layers draft, where a draft ends, and thresholds against the rule written out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import treewright
from treewright.core.claims import ABSENT
from treewright.core.errors import CapabilityError, InputError, UnknownOption
from treewright.core.request import Sampling
from treewright.methods.speculate.draft_and_verify import Config, DraftAndVerify, Sureness
from treewright.models.tables import Table
from treewright.testing import laws

TABLE = Table(6, seed=7, sharpness=2.0)
PROMPTS = [(1, 0), (3,), (5, 2, 4, 0)]
HALF: dict[str, Any] = {"skip_attention": (1, 3, 5, 6), "skip_mlp": (0, 1, 2, 4)}
"""On a table any four of eight of each kind are exit 4."""


def softmax(logits: np.ndarray) -> np.ndarray:
    weights = np.exp(logits - logits.max())
    return weights / weights.sum()


@pytest.mark.parametrize("depth", [3, 4, 6, 7])
def test_every_second_layer_but_the_last_is_left_out_by_default(depth: int, round_of: Any):
    round = round_of([[1]])
    round.layers = {"target": depth}
    [plan] = DraftAndVerify(Config()).plans(round)
    kept = [layer for layer in range(depth) if layer % 2 == 0 or layer == depth - 1]
    assert sorted(plan.attention) == sorted(plan.mlp) == kept


def test_lists_say_what_is_left_out(round_of: Any):
    round = round_of([[1]])
    round.layers = {"target": 8}
    [plan] = DraftAndVerify(Config(**HALF)).plans(round)
    assert (sorted(plan.attention), sorted(plan.mlp)) == ([0, 2, 4, 7], [3, 5, 6, 7])
    [plan] = DraftAndVerify(Config(skip_mlp=())).plans(round)
    assert (sorted(plan.attention), sorted(plan.mlp)) == ([0, 2, 4, 6, 7], list(range(8)))


@pytest.mark.parametrize("threshold", [0.0, 0.45, 0.6, 1.0])
def test_a_draft_ends_behind_the_first_token_that_is_not_sure_enough(threshold: float, decode: Any):
    options = HALF | {"tokens": 5, "threshold": threshold, "adapt": False}
    decoded = decode(TABLE, "draft_and_verify", PROMPTS, options, max_new_tokens=30)
    for row, prompt in enumerate(PROMPTS):
        text = list(prompt)
        for step in decoded.trace(row).steps:
            expected: list[int] = []
            room = min(5, len(prompt) + 30 - len(text) - 1)
            while len(expected) < room:
                law = softmax(TABLE.exit_logits([*text, *expected], 4))
                expected.append(int(law.argmax()))
                if law.max() < threshold:
                    break
            assert [token for token in step.token[1:] if token != ABSENT] == expected
            text += step.emitted


def test_a_sampled_draft_ends_by_the_warped_law_of_its_tokens(decode: Any, watcher: Any):
    """Every drafted token but a row's last was at least as probable as the threshold under the law it was drawn from, and the
    last one was not, or the draft was full."""
    ends = {"sure": 0, "unsure": 0}

    def look(outcome: Any) -> None:
        round = outcome.round
        for row, emitted in enumerate(outcome.emitted):
            text = round.text.of(row).tolist()
            prefix = text[: len(text) - len(emitted)]
            drafts = [int(token) for token in round.forest.token[row, 1:] if token != ABSENT]
            room = min(3, int(round.text.remaining()[row]) + len(emitted) - 1)
            for place, token in enumerate(drafts):
                law = softmax(TABLE.exit_logits([*prefix, *drafts[:place]], 4) / 0.6)
                assert (law[token] >= 0.35) or place == len(drafts) - 1
                if place == len(drafts) - 1:
                    ends["sure" if law[token] >= 0.35 else "unsure"] += 1
                    assert law[token] < 0.35 or len(drafts) == room

    options = HALF | {"tokens": 3, "threshold": 0.35, "adapt": False}
    sampling = Sampling(0.6)
    decode(TABLE, "draft_and_verify", PROMPTS, options, observers=[watcher(look)], max_new_tokens=30, sampling=sampling, seed=3)
    assert min(ends.values()) > 3


def test_thresholds_by_hand():
    """Accepted of drafted, most 4: 4/4, 4/4, 4/4, 4/4 (m rises past 0.9), 2/2, 0/3."""
    sure, m, threshold = Sureness(0.5), 0.0, 0.5
    seen = []
    for accepted, drafted in [(4, 4), (4, 4), (4, 4), (4, 4), (2, 2), (0, 3)]:
        m = 0.5 * m + 0.5 * accepted / drafted
        aim = threshold + 0.01 if m < 0.9 else threshold if drafted == 4 else threshold - 0.01
        threshold = 0.9 * threshold + 0.1 * aim
        sure.update(accepted, drafted, most=4)
        seen.append(sure.threshold)
        assert sure.threshold == pytest.approx(threshold, abs=1e-15)
    assert np.diff([0.5, *seen]).round(6).tolist() == [0.001, 0.001, 0.001, 0.0, -0.001, 0.001]


def test_rows_have_thresholds_of_their_own_that_follow_their_rounds(decode: Any, watcher: Any):
    expected: dict[int, Sureness] = {}

    def look(outcome: Any) -> None:
        round = outcome.round
        for row, key in enumerate(round.keys):
            drafted = int((round.forest.token[row, 1:] != ABSENT).sum())
            sure = expected.setdefault(key[0], Sureness(0.4))
            if drafted:
                sure.update(len(outcome.verdict.paths[row]), drafted, 4)
            assert round.memories.row(key, "draft_and_verify", Sureness) == sure

    options = {"skip_attention": (3,), "skip_mlp": (3,), "tokens": 4, "threshold": 0.4}
    decode(TABLE, "draft_and_verify", PROMPTS, options, observers=[watcher(look)], max_new_tokens=40)
    assert len({sure.threshold for sure in expected.values()} - {0.4}) > 1


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_nothing_left_out_accepts_everything(temperature: float, decode: Any):
    options = {"skip_attention": (), "skip_mlp": (), "tokens": 4, "threshold": 0.0}
    decoded = decode(TABLE, "draft_and_verify", PROMPTS, options, max_new_tokens=20, sampling=Sampling(temperature))
    assert {len(step.emitted) for step in decoded.trace().steps} == {5}


def test_sampled_drafts_are_judged_by_the_law_they_were_drawn_from():
    for options in (HALF | {"tokens": 2, "threshold": 0.4}, HALF | {"tokens": 1, "adapt": False}):
        assert laws.lossless("draft_and_verify", options).worst <= 1e-9


def test_greedy_text_of_networks_is_that_of_plain_decoding(says_what_plain_says: Any):
    results = says_what_plain_says("draft_and_verify", {"threshold": 0.1})
    shares = {call.share for result in results for call in result.trace.calls if call.kind == "sketch"}
    assert shares == {3 / 4}
    says_what_plain_says("draft_and_verify", {"skip_attention": [0, 2, 3], "skip_mlp": [1], "threshold": 0.0, "tokens": 3})


def test_bad_options_are_one_sentence(deep: Any):
    for options, words in (
        ({"skip_attention": [1, 4]}, r"skip_attention names 4 and the model has 4 layers; give numbers from 0 to 3"),
        ({"skip_mlp": [9]}, r"skip_mlp names 9 and the model has 4 layers"),
    ):
        with pytest.raises(CapabilityError, match=words):
            treewright.generate(deep("llama"), [1, 2], "draft_and_verify", options)
    for options, words in (({"skip_mlp": [-1]}, "skip_mlp"), ({"tokens": 0}, "tokens"), ({"threshold": 1.5}, "threshold")):
        with pytest.raises((InputError, UnknownOption), match=words):
            treewright.generate(deep("llama"), [1, 2], "draft_and_verify", options)


def test_a_model_without_inner_layers_must_be_told_what_to_leave_out():
    from treewright.core.session import Capabilities

    method = DraftAndVerify(Config())
    with pytest.raises(CapabilityError, match=r"the model has 2 layers; name some in skip_attention and skip_mlp"):
        method.fits(Capabilities(layers=2))
    DraftAndVerify(Config(skip_attention=(1,), skip_mlp=())).fits(Capabilities(layers=2))
    method.fits(Capabilities(layers=3))


def test_a_model_without_layers_is_refused(deep: Any):
    with pytest.raises(CapabilityError, match="needs layers"):
        treewright.generate(deep("mamba"), [1, 2], "draft_and_verify")
