"""STAND: the store against a mean, the draws against their law, templates, and the law of its text."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import numpy as np
import pytest

from treewright.core.claims import ABSENT, Law
from treewright.core.errors import InputError
from treewright.core.request import Budget, Sampling
from treewright.methods.speculate.stand import Config, Stand, Store, branching, parts
from treewright.models.tables import Table
from treewright.parts.propose.sparse import largest, largest_chances
from treewright.parts.propose.templates import accepted_ranks, best_template, write_template
from treewright.testing import laws

TABLE = Table(6, seed=3, order=2, sharpness=2.0)
PROMPTS = [(1, 2, 3, 4, 1, 2), (0,), (2, 2, 1)]
HOT = Sampling(temperature=1.0)


def softmax(logits: np.ndarray) -> np.ndarray:
    weights = np.exp(logits - logits.max())
    return weights / weights.sum()


def test_running_mean_is_the_mean_of_the_laws():
    store, chance = Store(4, 2, top=5, entries=100), np.random.default_rng(0)
    seen = chance.dirichlet(np.ones(5), size=7)
    for number, law in enumerate(seen):
        store.learn([9, 8, 7] if number % 2 else [5, 8, 7], *largest(law, 5))
    for text, laws_seen in (([1, 9, 8, 7], seen[1::2]), ([5, 8, 7], seen[::2]), ([3, 8, 7], seen), ([2, 7], seen)):
        tokens, chances = store.law(text)
        assert dict(zip(tokens, chances, strict=True)) == pytest.approx(dict(enumerate(laws_seen.mean(axis=0))))
    assert store.law([7, 8]) is None and store.law([]) is None


def test_cut_tokens_count_as_zero_and_the_likeliest_stay():
    store = Store(2, 2, top=2, entries=100)
    store.learn([1], [4, 5], [0.6, 0.3])
    store.learn([1], [6, 4], [0.8, 0.1])
    tokens, chances = store.law([1])
    assert tokens == [6, 4] and chances == pytest.approx([0.4, 0.35])


def test_the_oldest_n_gram_leaves_a_full_store():
    store = Store(2, 2, top=2, entries=2)
    for token in (1, 2, 1, 3):
        store.learn([token], [4], [1.0])
    assert len(store) == 2 and store.law([1]) is None and store.law([3]) is not None


def test_largest_chances_are_sorted_and_positive():
    assert largest(np.array([0.1, 0.0, 0.4, 0.4, 0.1]), 3)[0] == [2, 3, 0]
    assert largest(np.array([0.0, 1.0, 0.0]), 2) == ([1], [1.0])
    logits = np.random.default_rng(1).normal(size=50)
    assert largest_chances(logits, 4)[0] == np.argsort(-logits)[:4].tolist()
    assert largest_chances(logits, 4)[1] == pytest.approx(np.sort(softmax(logits))[::-1][:4].tolist())


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_every_committed_position_enters_the_store(temperature, decode):
    memories: dict[Any, Any] = {}
    sampling = Sampling(temperature=temperature)
    options = {"top": 6, "longest": 3}
    decoded = decode(TABLE, "stand", [PROMPTS[0]], options, memories=memories, max_new_tokens=40, sampling=sampling)
    (store,) = memories.values()
    text, seen = list(PROMPTS[0]), dict[tuple[int, ...], list[np.ndarray]]()
    for token in decoded.tokens[0]:
        for size in (2, 1):
            seen.setdefault(tuple(text[-size:]), []).append(softmax(TABLE.logits(text).astype(np.float64)))
        text.append(token)
    assert decoded.accepted() > 5 and len(store) == len(seen)
    for key, expected in seen.items():
        times, tokens, chances = store._known[key]
        assert times == len(expected)
        assert chances == pytest.approx(np.mean(expected, axis=0)[tokens].tolist(), abs=1e-5)


def test_numbers_of_children_follow_the_template():
    template = ((0,), (1,), (0, 0), (2,), (0, 1), (1, 0), (0, 0, 0))
    assert dict(branching(template, 7)) == {(): 3, (0,): 2, (1,): 1, (0, 0): 1}
    assert dict(branching(template, 3)) == {(): 2, (0,): 1}


def ready(round: Any, config: Config) -> Stand:
    """A drafter that knows what follows 1, and what follows each of those."""
    stand = Stand(config)
    store = stand.store(round)
    store.learn([1], [2, 3, 4], [0.5, 0.3, 0.1])
    store.learn([1, 2], [5, 6], [0.4, 0.4])
    store.learn([3], [1], [1.0])
    return stand


def test_the_tree_holds_the_likeliest_at_temperature_0(round_of):
    round = round_of([[1], [9, 1], [9]], claims=8)
    ready(round, Config(width=2, depth=2, nodes=6)).propose(round)
    forest = round.forest
    for row in range(2):
        paths = [forest.path_tokens(row, column) for column in range(1, forest.columns)]
        assert paths == [[2], [3], [2, 5], [2, 6], [3, 1]]
    assert (forest.token[2, 1:] == ABSENT).all()
    assert set(forest.law) == {Law.DELTA} and not forest.q


def test_children_are_drawn_without_replacement_from_the_recorded_law(decode, outcomes, watcher):
    """The ordered pair (x, y) has probability q(x) q(y) / (1 - q(x)), and q is what the verifier is told."""
    memories: dict[Any, Any] = {}
    settings = dict(max_new_tokens=12, sampling=HOT, memories=memories)
    decode(TABLE, "stand", PROMPTS, {"top": 4}, **settings)
    stored = memories["stand", 4, 2, 4, 500_000, HOT].law(PROMPTS[0])
    law: dict[tuple[int, ...], float] = {}
    told = watcher(lambda outcome: (outcome.round.forest.q[0][0], list(outcome.round.forest.law)))

    def run(chance):
        decoded = decode(
            TABLE, "stand", PROMPTS[:1], {"top": 4, "nodes": 2, "depth": 1}, randomness=chance, observers=[told],
            max_new_tokens=5, budget=Budget(model_calls=1), sampling=HOT, memories=copy.deepcopy(memories),
        )  # fmt: skip
        return tuple(decoded.trace().steps[0].token[1:])

    for probability, pair in outcomes(run):
        law[pair] = law.get(pair, 0.0) + probability
    q = dict(zip(stored[0], np.array(stored[1]) / sum(stored[1]), strict=True))
    expected = {(x, y): q[x] * q[y] / (1 - q[x]) for x, y in itertools.permutations(q, 2)}
    assert law == pytest.approx(expected)
    for drawn_by, kinds in told.seen:
        assert {token: drawn_by[token] for token in np.flatnonzero(drawn_by)} == pytest.approx(q)
        assert kinds == [Law.DELTA, Law.SWOR, Law.SWOR]


def test_likeliest_draws_emit_what_plain_sampling_emits(decode):
    settings = dict(max_new_tokens=40, sampling=HOT, seed=2)
    drafted = decode(TABLE, "stand", PROMPTS, {"draws": "likeliest"}, **settings)
    assert drafted.tokens == decode(TABLE, "plain", PROMPTS, **settings).tokens
    assert drafted.accepted() > 10


@pytest.mark.parametrize("columns", [None, 9, 3])
def test_greedy_text_is_that_of_plain_decoding(columns, decode, greedy_text):
    decoded = decode(TABLE, "stand", PROMPTS, columns=columns, max_new_tokens=40)
    assert decoded.tokens == [greedy_text(TABLE, prompt, 40) for prompt in PROMPTS]
    assert decoded.accepted() > 5 or columns == 3


def test_trajectories_of_one_problem_help_each_other(decode):
    memories: dict[Any, Any] = {}
    settings = dict(max_new_tokens=40, sampling=Sampling(temperature=0.5), memories=memories)
    first = decode(TABLE, "stand", PROMPTS[:1], seed=0, **settings)
    later = decode(TABLE, "stand", PROMPTS[:1], seed=1, **settings)
    assert later.trace().model_calls < first.trace().model_calls


def test_order_of_rows_changes_nothing_in_the_store(decode, watcher):
    stores = []
    for prompts in (PROMPTS, PROMPTS[::-1]):
        memories: dict[Any, Any] = {}
        decode(TABLE, "stand", prompts, memories=memories, max_new_tokens=20)
        stores.append({key: entry[0] for key, entry in next(iter(memories.values()))._known.items()})
    assert stores[0] == stores[1]


def test_laws_under_other_warpers_are_kept_apart(decode):
    memories: dict[Any, Any] = {}
    for sampling in (HOT, Sampling(temperature=1.0, top_k=2), HOT):
        decode(TABLE, "stand", PROMPTS, memories=memories, max_new_tokens=5, sampling=sampling)
    wide, narrow = memories.values()
    assert {len(entry[1]) for entry in wide._known.values()} == {6}
    assert all(len(entry[1]) == 2 for entry in narrow._known.values() if entry[0] == 1)


def test_a_template_from_traces_is_followed(tmp_path, decode):
    settings = dict(max_new_tokens=60, sampling=Sampling(temperature=0.6))
    counted = decode(TABLE, "stand", PROMPTS, {"nodes": 80}, seed=5, **settings)
    template = best_template(accepted_ranks(counted.engine.traces.values()), 8)
    write_template(tmp_path / "template.json", template)
    decoded = decode(TABLE, "stand", PROMPTS, {"template": str(tmp_path / "template.json"), "nodes": 8}, seed=6, **settings)
    widest = max(len(step.token) for step in decoded.trace().steps)
    assert 1 < widest <= 9 and decoded.accepted() > 30


@pytest.mark.parametrize(
    "options", [{"nodes": 3}, {"nodes": 2, "width": 1}, {"nodes": 3, "width": 3, "top": 2}, {"draws": "likeliest", "nodes": 5}],
    ids=str,
)  # fmt: skip
def test_laws_hold(options):
    assert laws.lossless("stand", options).total("accepted") > 0


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"nodes": 0}, "nodes is 0"), ({"width": 0}, "width is 0"), ({"depth": 0}, "depth is 0"), ({"top": 0}, "top is 0"),
        ({"shortest": 1}, "shortest is 1"), ({"longest": 1}, "longest is 1"), ({"draws": "all"}, "draws is all"),
        ({"entries": 0}, "entries is 0"), ({"template": "none.json"}, "none.json"),
    ],
)  # fmt: skip
def test_bad_options(options, match):
    with pytest.raises(InputError, match=match):
        parts(Config(**options))
