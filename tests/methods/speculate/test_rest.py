"""REST: the tree against a count of all continuations, the datastore against a list of all outputs, losslessness."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import numpy as np
import pytest

from treewright.core.claims import ABSENT
from treewright.core.errors import InputError
from treewright.core.request import Sampling
from treewright.methods.speculate.rest import Config, Datastore, Retrieval, frequent_prefixes, index_corpus, parts
from treewright.models.tables import Table
from treewright.parts.propose.corpus import write_corpus
from treewright.testing import laws

TABLE = Table(6, seed=3, order=2, sharpness=2.0)
PROMPTS = [(1, 2, 3, 4, 1, 2), (0,), (2, 2, 1)]


def texts_of(seed: int, count: int = 4) -> list[list[int]]:
    chance = random.Random(seed)
    return [[chance.choice((0, 0, 1, 2, 3)) for _ in range(chance.randrange(1, 60))] for _ in range(count)]


def behind(texts: list[list[int]], run: list[int], length: int) -> list[list[int]]:
    size = len(run)
    return sorted(
        (text[at + size : at + size + length] + [ABSENT] * length)[:length]
        for text in texts for at in range(len(text)) if text[at : at + size] == run
    )  # fmt: skip


def longest_run(texts: list[list[int]], tail: list[int], longest: int, shortest: int) -> list[int]:
    for size in range(min(longest, len(tail)), shortest - 1, -1):
        if behind(texts, tail[-size:], 1):
            return tail[-size:]
    return []


@pytest.mark.parametrize("seed", range(12))
def test_prefixes_are_the_most_frequent(seed):
    chance = random.Random(seed)
    rows = sorted([chance.choice((0, 0, 0, 1, 2)) for _ in range(5)] for _ in range(40))
    rows = [row[:2] + [ABSENT] * 3 if number % 7 == 0 else row for number, row in enumerate(rows)]
    rows.sort()
    counts = Counter(tuple(row[:size]) for row in rows for size in range(1, 6) if ABSENT not in row[:size])
    for nodes in (1, 3, 10, 30, 500):
        trie = frequent_prefixes(np.array(rows), nodes)
        taken = [tuple(trie.path(node)) for node in range(1, len(trie))]
        assert len(taken) == len(set(taken)) == min(nodes, len(counts))
        assert sorted((counts[path] for path in taken), reverse=True) == sorted(counts.values(), reverse=True)[: len(taken)]


@pytest.mark.parametrize("seed", range(6))
def test_the_longest_run_is_looked_up_in_the_corpus(seed, tmp_path):
    texts = texts_of(seed)
    write_corpus(tmp_path / "corpus.npz", texts)
    config = Config(corpus=str(tmp_path / "corpus.npz"), length=4, longest=6)
    store = Datastore(config, index_corpus(config, 4))
    for tail in texts_of(seed + 100, 20):
        run = longest_run(texts, tail, 6, 2)
        expected = behind(texts, run, 4) if run else []
        assert store.following(tail[-6:], 2, 5000).tolist() == expected


def test_outputs_enter_each_place_once(decode):
    config = {"length": 3, "longest": 4, "fresh": 5}
    memories: dict[Any, Any] = {}
    outputs: list[list[int]] = []
    for prompts in (PROMPTS, [(4,)], PROMPTS[:1]):
        outputs += decode(TABLE, "rest", prompts, config, memories=memories, max_new_tokens=30).tokens
    store = next(iter(memories.values()))
    # Rows that nothing followed under their key keep what is behind their last places to themselves.
    tails = [tail.tokens for tail in store._tails.values()]
    assert store.tokens == sum(map(len, outputs)) - sum(map(len, tails))
    for text in texts_of(5, 10):
        for run in (text[-2:], text[-1:]):
            found = [shard.following(shard.find(run), len(run), 3, 999).tolist() for shard in store.shards]
            missing = Counter(tuple(row) for row in behind(outputs, run, 3))
            missing.subtract(tuple(row) for rows in found for row in rows)
            hidden = Counter(tuple(row) for row in behind(tails, run, 3))
            assert {row: n for row, n in missing.items() if n} == dict(hidden)


def test_shards_are_merged_and_the_oldest_leaves():
    def filled(history: int) -> Datastore:
        store = Datastore(Config(history=history))
        for number in range(64):
            store._add([np.arange(40)], [10 + number % 3])
        return store

    assert len(filled(10_000).shards) <= 7
    assert filled(10_000).tokens == sum(10 + number % 3 for number in range(64))
    assert filled(300).tokens <= 700


def test_of_many_places_some_are_counted(tmp_path):
    write_corpus(tmp_path / "corpus.npz", [[1, 2, token % 5] for token in range(100)])
    config = Config(corpus=str(tmp_path / "corpus.npz"), length=1)
    store = Datastore(config, index_corpus(config, 5))
    assert Counter(store.following([1, 2], 2, 10).ravel().tolist()) == dict.fromkeys(range(5), 2)


def test_what_the_corpus_knows_is_drafted(tmp_path, decode, greedy_text):
    write_corpus(tmp_path / "corpus.npz", [[*prompt, *greedy_text(TABLE, prompt, 40)] for prompt in PROMPTS])
    options = {"corpus": str(tmp_path / "corpus.npz"), "learn": False}
    decoded = decode(TABLE, "rest", PROMPTS, options, max_new_tokens=40)
    assert decoded.tokens == [greedy_text(TABLE, prompt, 40) for prompt in PROMPTS]
    assert decoded.accepted() > 60
    without = decode(TABLE, "rest", PROMPTS, {"learn": True, "fresh": 1000}, max_new_tokens=40)
    assert without.tokens == decoded.tokens and without.accepted() == 0


def test_outputs_help_the_next_run(decode):
    memories: dict[Any, Any] = {}
    settings = dict(memories=memories, max_new_tokens=60)
    cold = decode(TABLE, "rest", PROMPTS, {"fresh": 8}, **settings)
    warm = decode(TABLE, "rest", PROMPTS, {"fresh": 8}, **settings)
    assert cold.tokens == warm.tokens
    assert warm.trace().model_calls < cold.trace().model_calls


def test_search_options_share_a_datastore_and_a_new_file_makes_a_new_one(tmp_path, round_of):
    path = tmp_path / "corpus.npz"
    write_corpus(path, [[1, 2, 3]])
    round = round_of([[1, 2]])
    first = Retrieval(Config(corpus=str(path))).datastore(round)
    assert Retrieval(Config(corpus=str(path), nodes=3, shortest=1)).datastore(round) is first
    assert Retrieval(Config(corpus=str(path), length=3)).datastore(round) is not first
    write_corpus(path, [[1, 2, 4]])
    assert Retrieval(Config(corpus=str(path))).datastore(round) is not first


@pytest.mark.parametrize("options", [{"fresh": 4}, {"fresh": 1, "shortest": 1, "nodes": 5}, {"fresh": 2, "hits": 1}], ids=str)
@pytest.mark.parametrize("columns", [None, 9, 3])
def test_sampled_tokens_are_those_of_plain_sampling(options, columns, decode):
    settings = dict(max_new_tokens=60, sampling=Sampling(temperature=0.5), seed=2, memories={})
    drafted = decode(TABLE, "rest", PROMPTS, options, columns=columns, **settings)
    drafted = decode(TABLE, "rest", PROMPTS, options, columns=columns, **settings)
    assert drafted.tokens == decode(TABLE, "plain", PROMPTS, **settings).tokens
    assert drafted.accepted() > 0 or columns == 3


def test_laws_hold(tmp_path):
    write_corpus(tmp_path / "corpus.npz", [[0, 1, 2, 0, 2, 1, 0, 1, 1, 2, 2, 0, 0, 1, 0]])
    for options in ({"fresh": 1, "length": 2, "longest": 2}, {"corpus": str(tmp_path / "corpus.npz"), "shortest": 1}):
        assert laws.lossless("rest", options).total("accepted") > 0


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"learn": False}, "corpus is empty"), ({"nodes": 0}, "nodes is 0"), ({"length": 0}, "length is 0"),
        ({"shortest": 0}, "shortest is 0"), ({"longest": 1}, "longest is 1"), ({"hits": 0}, "hits is 0"),
        ({"fresh": 0}, "fresh is 0"), ({"history": 0}, "history is 0"),
    ],
)  # fmt: skip
def test_bad_options(options, match):
    with pytest.raises(InputError, match=match):
        Config(**options)


def test_a_missing_corpus_is_known_before_anything_runs(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        parts(Config(corpus=str(tmp_path / "none.npz")))
    with pytest.raises(InputError, match="ending in"):
        parts(Config(corpus="corpus.csv"))
