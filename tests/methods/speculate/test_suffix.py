"""Suffix decoding: drafts against a search through all matches and continuations, the shared history, forks, losslessness."""

from __future__ import annotations

import copy
import random
from typing import Any

import numpy as np
import pytest

from treewright.core.errors import InputError
from treewright.core.request import Sampling
from treewright.methods.speculate.suffix import Config, OwnText, SuffixDecoding, draft_path, draft_tree, parts
from treewright.models.tables import Table
from treewright.parts.propose.corpus import write_corpus
from treewright.parts.propose.suffix_trie import SuffixTrie
from treewright.parts.propose.trees import Trie
from treewright.testing import laws

TABLE = Table(5, seed=3, order=2, sharpness=2.0)
PROMPTS = [(1, 2, 3, 4, 1, 2), (0,), (2, 2, 1)]


def occurrences(texts: list[list[int]], run: tuple[int, ...]) -> int:
    size = len(run)
    return sum(tuple(text[at : at + size]) == run for text in texts for at in range(len(text) - size + 1))


def scan_draft(texts: list[list[int]], tail: list[int], config: Config) -> tuple[float, int, set[tuple[int, ...]]]:
    """Score, match length and paths of the best draft, by scanning the texts for every match and every continuation."""
    best: tuple[float, int, set[tuple[int, ...]]] = (0.0, 0, set())
    for size in range(1, min(len(tail), config.depth - 1) + 1):
        match = tuple(tail[-size:])
        budget = min(config.tokens, int(size * config.factor + config.offset))
        chances: dict[tuple[int, ...], float] = {}
        edge: dict[tuple[int, ...], float] = {(): 1.0}
        while edge:
            longer = {}
            for path, chance in edge.items():
                if size + len(path) >= config.depth:
                    continue
                below = {t: occurrences(texts, (*match, *path, t)) for t in range(5)}
                for token, count in below.items():
                    likely = chance * count / max(1, occurrences(texts, (*match, *path)))
                    if count and likely >= config.min_prob and (config.mode == "tree" or count == max(below.values())):
                        longer[*path, token] = likely
                        if config.mode == "path":
                            break
            chances |= longer
            edge = longer
        paths = sorted(chances, key=lambda path: -chances[path])[:budget]
        score = sum(chances[path] for path in paths)
        if score > 0 and score >= best[0] - 1e-12:
            best = score, size, set(paths)
    return best


@pytest.mark.parametrize("mode", ["tree", "path"])
@pytest.mark.parametrize(("factor", "offset", "least"), [(1.0, 0.0, 0.1), (2.0, 1.0, 0.25), (0.5, 3.0, 0.05)])
def test_the_best_draft_is_that_of_a_scan(mode, factor, offset, least):
    chance = random.Random(4)
    for _ in range(25):
        config = Config(tokens=5, mode=mode, depth=6, factor=factor, offset=offset, min_prob=least)
        texts = [[chance.choice((0, 1, 1, 2)) for _ in range(chance.randrange(25))] for _ in range(3)]
        counts = SuffixTrie(config.depth, bucket=2)
        for text in texts:
            counts.append(counts.begin(), text)
        tail = texts[0][-5:]
        draft = SuffixDecoding(config).best_draft(counts, tail, 5)
        score, _, paths = scan_draft(texts, tail, config)
        assert draft.score == pytest.approx(score)
        found = {tuple(draft.trie.path(node)) for node in range(1, len(draft.trie))}
        # Where chances tie at the budget's end any of the tied tokens may be drafted.
        assert len(found) == len(paths) and all(path[:-1] in found | {()} for path in found)


def test_a_text_seen_once_before_is_drafted_as_far_as_the_match_is_long():
    text = [7, 1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2, 3]
    own = OwnText(64, text)
    draft = SuffixDecoding(Config()).best_draft(own.counts, text[-63:], 32)
    assert draft.trie.path(len(draft.trie) - 1) == [4, 5, 6]
    assert draft.score == pytest.approx(1.5)  # The match at the text's own end counts, and nothing follows it.


def test_path_stops_at_the_least_chance():
    counts = SuffixTrie(8)
    counts.append(counts.begin(), [1, 2, 3, 9, 1, 2, 4, 9, 1, 2, 3, 8, 1, 5])
    match = counts.find([1])
    lengths = [len(draft_path(counts, match, 5, least).trie) - 1 for least in (0.8, 0.75, 0.6, 0.5, 0.3, 0.2)]
    assert lengths == [0, 1, 1, 2, 2, 5]


def test_own_text_and_history_compete(round_of):
    suffix = SuffixDecoding(Config(mode="path"))
    round = round_of([[1, 2, 3, 1, 2]], vocabulary=20)
    history = suffix.history(round)
    for _ in range(2):
        history.counts.append(history.counts.begin(), [1, 2, 8, 9])
    suffix.propose(round)
    assert round.forest.token[0, 1:].tolist() == [8, 9]
    for config, drafted in ((Config(shared=False), [3, 1]), (Config(own=False), [8, 9])):
        alone = SuffixDecoding(config)
        alone.propose(round)
        assert round.forest.token[0, 1:].tolist() == drafted


def test_history_keeps_outputs_and_lets_the_oldest_go(decode):
    memories: dict[object, Any] = {}
    outputs = []
    for prompt in [*PROMPTS, (4, 4), (3,)]:
        outputs.append(decode(TABLE, "suffix", [prompt], {"history": 50}, memories=memories, max_new_tokens=20).tokens[0])
        (history,) = memories.values()
        kept = [history.counts.text(number) for number in range(max(0, len(outputs) - 2), len(outputs))]
        assert kept == outputs[-2:] and history.counts.tokens == 20 * len(kept)
    assert outputs[0] == decode(TABLE, "plain", PROMPTS[:1], max_new_tokens=20).tokens[0]


def test_history_helps_the_next_run(decode, greedy_text):
    memories = {}
    settings = dict(memories=memories, max_new_tokens=30)
    table = Table(40, seed=5, order=2, sharpness=2.0)
    cold = decode(table, "suffix", PROMPTS, **settings)
    warm = decode(table, "suffix", PROMPTS, **settings)
    assert cold.tokens == warm.tokens == [greedy_text(table, prompt, 30) for prompt in PROMPTS]
    assert warm.trace().model_calls < cold.trace().model_calls


@pytest.mark.parametrize(
    "options", [{}, {"mode": "path"}, {"shared": False}, {"own": False, "history": 10}, {"tokens": 1}], ids=str
)
@pytest.mark.parametrize("columns", [None, 9, 3])
def test_sampled_tokens_are_those_of_plain_sampling(options, columns, decode):
    settings = dict(max_new_tokens=40, sampling=Sampling(temperature=0.7), seed=2)
    drafted = decode(TABLE, "suffix", PROMPTS, options, columns=columns, **settings)
    assert drafted.tokens == decode(TABLE, "plain", PROMPTS, **settings).tokens
    assert drafted.accepted() > 0 or columns == 3
    assert max(len(step.token) for step in drafted.trace().steps) <= 33


def test_order_of_rows_changes_nothing_in_the_history(round_of):
    kept = []
    for order in ((0, 1, 2), (2, 0, 1)):
        suffix, round = SuffixDecoding(Config()), round_of([[1], [1], [1]])
        round.keys = [(row, 0) for row in order]
        for slot, row in enumerate(order):
            round.text.append(slot, [row, row + 1, row])
        suffix.history(round).learn(round)
        kept.append([suffix.history(round).counts.text(number) for number in range(3)])
    assert kept[0] == kept[1]


def test_a_copy_for_a_forked_row_is_a_trie_of_its_own():
    own = OwnText(8, [1, 2, 1])
    forked = copy.deepcopy(own)
    forked.follow(np.array([1, 2, 1, 2]))
    assert (own.counts.find([1, 2]).times, forked.counts.find([1, 2]).times) == (1, 2)


def test_a_row_that_was_forked_matches_in_its_new_text(round_of):
    suffix, round = SuffixDecoding(Config()), round_of([[1, 2], [3, 4]])
    for row in range(2):
        suffix.own(round, row)
    round.text.select([1, 1])
    round.memories.fork(round.keys, [round.keys[1], round.keys[1]])
    round.text.append(0, [5])
    assert suffix.own(round, 0).counts.text(0) == [3, 4, 5]
    assert suffix.own(round, 1).counts.text(0) == [3, 4]


def test_the_bounds_leave_out_no_winner():
    """Scores and longest winners against every match drafted."""
    chance = random.Random(7)
    for trial in range(200):
        config = Config(tokens=8, depth=12, mode=("tree", "path")[trial % 2], factor=chance.choice((0.7, 1.0, 3.0)))
        counts = SuffixTrie(config.depth, bucket=chance.choice((1, 8)))
        text = [chance.choice((0, 0, 1)) for _ in range(60)]
        counts.append(counts.begin(), text)
        counts.append(counts.begin(), text[10:40])
        build = draft_tree if config.mode == "tree" else draft_path
        tried = [
            build(counts, match, min(8, int(size * config.factor)), config.min_prob)
            for size, match in enumerate(counts.matches(text[-11:]), start=1)
        ]
        best = SuffixDecoding(config).best_draft(counts, text[-11:], 8)
        top = max(draft.score for draft in tried)
        winner = [draft for draft in tried if draft.score == top][-1]
        assert (best.score, best.trie.tokens, best.trie.parents) == (top, winner.trie.tokens, winner.trie.parents)
        assert len(SuffixDecoding(config).best_draft(counts, text[-11:], 8, beat=top).trie) == 1


def test_a_text_of_the_corpus_is_drafted_from_the_start(tmp_path, decode, greedy_text):
    table = Table(40, seed=5, order=2, sharpness=2.0)
    texts = [[*prompt, *greedy_text(table, prompt, 40)] for prompt in PROMPTS]
    write_corpus(tmp_path / "corpus.npz", texts)
    corpus = {"corpus": str(tmp_path / "corpus.npz")}
    for options in ({}, {"own": False, "shared": False}, {"history": 0, "mode": "path"}):
        helped = decode(table, "suffix", PROMPTS, options | corpus, max_new_tokens=40)
        assert helped.tokens == [text[-40:] for text in texts]
        assert [len(helped.trace(row).steps[0].accepted) > 0 for row in (0, 2)] == [True, True], "on a cold start"
        assert helped.trace().model_calls < decode(table, "plain", PROMPTS, max_new_tokens=40).trace().model_calls / 2


def test_corpus_own_text_and_history_compete_and_the_corpus_is_never_evicted(tmp_path, round_of):
    write_corpus(tmp_path / "corpus.npz", [[1, 2, 7, 6], [1, 2, 7, 6], [1, 2, 7, 6], [1, 2, 7, 5]])
    round = round_of([[1, 2, 3, 1, 2]], vocabulary=20)
    for options, drafted in (({}, [7, 6]), ({"corpus": ""}, [3, 1]), ({"shared": False, "factor": 0.5}, [7])):
        suffix = SuffixDecoding(Config(**{"corpus": str(tmp_path / "corpus.npz"), "mode": "path", "history": 0} | options))
        suffix.propose(round)
        assert round.forest.token[0, 1:].tolist() == drafted
        for _ in range(3):
            suffix.history(round).learn(round)
    assert suffix.corpus(round).tokens == 16
    write_corpus(tmp_path / "corpus.npz", [[1, 2, 4]])
    assert SuffixDecoding(Config(corpus=str(tmp_path / "corpus.npz"))).corpus(round).tokens == 3, "a new file is read anew"


def test_on_equal_scores_the_own_text_comes_first_and_the_corpus_last(tmp_path, round_of):
    write_corpus(tmp_path / "corpus.npz", [[1, 2, 8]])
    config = Config(corpus=str(tmp_path / "corpus.npz"), mode="path", factor=0.5, min_prob=1.0)
    round = round_of([[1, 2], [3, 1, 2]], vocabulary=20)
    suffix = SuffixDecoding(config)
    suffix.history(round).counts.append(suffix.history(round).counts.begin(), [1, 2, 9])
    suffix.propose(round)
    assert round.forest.token[:, 1].tolist() == [9, 9]


def test_rows_of_a_batch_draft_from_the_corpus_as_alone(tmp_path, decode):
    chance = random.Random(3)
    write_corpus(tmp_path / "corpus.npz", [[chance.randrange(5) for _ in range(150)] for _ in range(3)])
    options = {"corpus": str(tmp_path / "corpus.npz"), "shared": False}
    settings = dict(max_new_tokens=30, sampling=Sampling(temperature=0.7), seed=2)
    batch = decode(TABLE, "suffix", PROMPTS, options, **settings)
    assert batch.tokens == decode(TABLE, "plain", PROMPTS, **settings).tokens and batch.accepted() > 0
    first = decode(TABLE, "suffix", PROMPTS[:1], options, **settings)
    assert first.tokens == batch.tokens[:1]
    drafts = [[[t for t in step.token if t >= 0] for step in one.trace(0).steps] for one in (first, batch)]
    assert drafts[0] == drafts[1]


def test_a_missing_corpus_is_known_before_anything_runs(tmp_path, decode):
    with pytest.raises(InputError, match="does not exist; write one with"):
        parts(Config(corpus=str(tmp_path / "none.npz")))
    with pytest.raises(InputError, match="ending in"):
        parts(Config(corpus="corpus.csv"))
    write_corpus(tmp_path / "corpus.npz", [[1, 2, 5]])
    with pytest.raises(InputError, match="holds the token id 5 and the target knows 5 tokens"):
        decode(TABLE, "suffix", PROMPTS, {"corpus": str(tmp_path / "corpus.npz")}, max_new_tokens=2)


def test_laws_hold(tmp_path):
    write_corpus(tmp_path / "corpus.npz", [[0, 1, 2, 0, 2, 1, 0, 1, 1, 2, 2, 0, 0, 1, 0]])
    alone = {"corpus": str(tmp_path / "corpus.npz"), "own": False, "shared": False}
    for options in ({}, {"mode": "path", "offset": 2.0}, alone):
        report = laws.lossless("suffix", options)
        assert report.total("accepted") > 0


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"tokens": 0}, "tokens is 0"), ({"mode": "graph"}, "mode is graph"), ({"depth": 1}, "depth is 1"),
        ({"factor": -1.0}, "factor is -1"), ({"factor": 0.0}, "factor is 0"), ({"min_prob": 0.0}, "min_prob is 0"),
        ({"own": False, "shared": False}, "own is False"), ({"history": -1}, "history is -1"),
        ({"offset": -0.5}, "offset is -0.5"),
    ],
)  # fmt: skip
def test_bad_options(options, match):
    with pytest.raises(InputError, match=match):
        Config(**options)


def test_no_room_for_claims(round_of):
    round = round_of([[1, 2, 1, 2]], claims=1)
    SuffixDecoding(Config()).propose(round)
    assert round.forest.columns == len(Trie()) == 1
