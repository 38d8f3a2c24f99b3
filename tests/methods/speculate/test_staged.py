"""Staged: guesses change the calls of the draft model and nothing else; the law of its text; its n-gram model."""

from __future__ import annotations

import copy
import itertools

import pytest

from treewright.core.errors import InputError
from treewright.core.request import Sampling
from treewright.methods.speculate import staged
from treewright.models.tables import Table
from treewright.testing import laws
from treewright.testing.reports import LawBroken

# An order of 2 makes texts that n-grams can know.
TARGET = Table(6, seed=1, order=2, sharpness=2.0)
DRAFT = Table(6, seed=2, order=2, sharpness=2.0, like=TARGET, likeness=0.5)
PROMPTS = [(1, 0, 2), (3,), (2, 2, 1, 0, 1)]


@pytest.mark.parametrize(("options", "vocabulary"), [({"nodes": 2}, 4), ({"nodes": 3, "guesses": 1}, 3)])
def test_joint_law_of_two_tokens_is_the_targets(options, vocabulary, off_the_law):
    assert off_the_law("staged", options, Table(vocabulary, seed=10), Table(vocabulary, seed=1)) < 1e-12


def test_a_wrong_law_of_the_drafts_is_seen(spoiled):
    with pytest.raises(LawBroken):
        laws.lossless("staged", {"nodes": 2}, alter=spoiled)


def test_drafts_that_follow_the_guesses_are_seen(monkeypatch, off_the_law):
    """A draft model that takes a guess for its own draw, whatever its law says, changes the law of the text."""
    from treewright.parts.propose.sketchpad import Sketchpad

    honest = Sketchpad.draw

    def gullible(pad, row, node):
        known = [token for token, child in pad.rows[row].children[node].items() if pad.answered(row, child)]
        drawn = honest(pad, row, node)
        if known and drawn and len(pad.rows[row].drawn) == 1:
            pad.rows[row].tokens[drawn[0]] = known[0]
        return drawn

    monkeypatch.setattr(Sketchpad, "draw", gullible)
    options = {"nodes": 1, "guesses": 1, "order": 2}
    learned = staged.BackOff(2)
    learned.read([0, 1, 0, 1, 0, 1])
    monkeypatch.setattr(staged, "BackOff", lambda order: copy.deepcopy(learned))
    assert off_the_law("staged", options, Table(4, seed=10), Table(4, seed=1)) > 0.01


def run(decode, guesses: int, temperature: float, watcher):
    forests = watcher(lambda outcome: (outcome.round.forest.token.tolist(), outcome.round.forest.shape.parent.tolist()))
    decoded = decode(
        TARGET, "staged", PROMPTS, {"nodes": 8, "guesses": guesses}, DRAFT, [forests], max_new_tokens=60,
        sampling=Sampling(temperature=temperature), seed=3,
    )  # fmt: skip
    calls = sum(call.model == "draft" and call.kind == "score" for call in decoded.trace().calls)
    return decoded.tokens, forests.seen, calls


@pytest.mark.parametrize("temperature", [0.0, 0.5])
def test_guesses_save_draft_calls_and_change_no_claim(temperature, decode, watcher):
    text, claims, calls = run(decode, 0, temperature, watcher)
    guessed_text, guessed_claims, fewer = run(decode, 4, temperature, watcher)
    assert guessed_text == text
    assert guessed_claims == claims
    assert fewer < 0.8 * calls


def test_a_draft_that_is_guessed_right_needs_one_call(decode, watcher):
    """The text repeats itself, so the n-gram model knows all the draft model is going to say."""
    loop = Table(4, seed=3, order=1, sharpness=30.0)
    decoded = decode(loop, "staged", [(1, 0)], {"nodes": 5, "guesses": 8, "order": 2}, loop, max_new_tokens=120)
    calls = [call.model for call in decoded.trace().calls if call.kind == "score"]
    assert calls[-8:] == ["draft", "target"] * 4
    assert [len(step.emitted) for step in decoded.trace().steps[:-1]] == [6] * 19 + [6] * (len(decoded.trace().steps) - 20)


def test_claims_worth_too_little_are_left(first_forest, paths_of, softmax):
    for least in (0.05, 0.3, 0.9):
        forest = first_forest("staged", {"nodes": 40, "least": least}, TARGET, DRAFT, PROMPTS)
        for row, prompt in enumerate(PROMPTS):
            paths, worth, left = paths_of(forest, row), {(): 1.0}, {}
            for path in paths:
                law = softmax(DRAFT.logits((*prompt, *path[:-1])))
                value = worth[path[:-1]] * left.get(path[:-1], 1.0)
                assert value >= least
                worth[path] = worth[path[:-1]] * law[path[-1]]
                left[path[:-1]] = left.get(path[:-1], 1.0) - law[path[-1]]


def test_the_same_tree_as_dyspec(first_forest, paths_of):
    for temperature in (0.0, 1.0):
        mine = first_forest("staged", {"nodes": 9, "least": 0.0}, TARGET, DRAFT, PROMPTS, temperature)
        other = first_forest("dyspec", {"budget": 9}, TARGET, DRAFT, PROMPTS, temperature)
        assert [paths_of(mine, row) for row in range(3)] == [paths_of(other, row) for row in range(3)]


def test_text_is_the_greedy_one(decode, greedy_text):
    decoded = decode(TARGET, "staged", PROMPTS, {"nodes": 8}, DRAFT, max_new_tokens=30)
    assert decoded.tokens == [greedy_text(TARGET, prompt, 30) for prompt in PROMPTS]
    assert decoded.accepted() > 20


def test_the_target_as_its_own_draft_accepts_first_children(decode):
    settings = dict(max_new_tokens=40, sampling=Sampling(temperature=1.0))
    decoded = decode(TARGET, "staged", PROMPTS, {"nodes": 4}, TARGET, **settings)
    assert all(step.accepted for step in decoded.trace().steps[:-1])


def test_longest_known_context_wins_and_shorter_ones_stand_in():
    ngrams = staged.BackOff(3)
    ngrams.read([1, 2, 3, 9, 2, 4, 9, 2, 4])
    assert ngrams.write([1, 2], 1) == [3]
    assert ngrams.write([7, 2], 1) == [4]
    assert ngrams.write([9, 2], 3) == [4, 9, 2]
    assert ngrams.write([8], 2) == [] and ngrams.write([], 2) == []


def test_text_is_read_once(decode):
    """Every place of the text adds one count of each context length, whatever the draft model said."""
    memories: dict[object, staged.BackOff] = {}
    silent = Table(6, seed=2)
    decoded = decode(TARGET, "staged", PROMPTS[:1], {"nodes": 1, "order": 2}, silent, memories=memories, max_new_tokens=20)
    text = [*PROMPTS[0], *decoded.tokens[0]]
    (ngrams,) = memories.values()
    asked = sum(1 for call in decoded.trace().calls if call.model == "draft" and call.kind == "score")
    counted = sum(sum(followers.values()) for followers in ngrams.counts.values())
    assert counted >= len(text) - 3 + asked - 1
    pairs = list(itertools.pairwise(text))
    assert all(ngrams.counts[(before,)][after] >= 1 for before, after in pairs[: len(text) - 4])


def test_a_model_of_too_many_contexts_begins_anew(monkeypatch):
    monkeypatch.setattr(staged, "MOST_CONTEXTS", 4)
    ngrams = staged.BackOff(2)
    ngrams.read(list(range(40)))
    assert len(ngrams.counts) <= 4 and ngrams.write([38], 1) == [39]


def test_rows_do_not_depend_on_their_neighbours(check_rows):
    check_rows("staged", {"nodes": 6}, TARGET, DRAFT)


@pytest.mark.parametrize(("columns", "most"), [(7, 6), (2, 1), (1, 0)])
def test_limit_on_columns(columns, most, first_forest, paths_of):
    options = {"least": 0.0}
    assert len(paths_of(first_forest("staged", options, TARGET, DRAFT, PROMPTS[:1], 1.0, columns=columns))) == most


def test_real_models_write_their_greedy_text(check_on_llamas):
    check_on_llamas("staged", {"nodes": 8})


@pytest.mark.parametrize(("option", "value"), [("nodes", 0), ("least", 1.0), ("guesses", -1), ("order", 1)])
def test_impossible_options_are_refused(option, value):
    with pytest.raises(InputError, match=f"{option} is {value}; allowed: "):
        staged.Config(**{option: value})
