"""RASD: retrieval, pruning and fusion against their definitions, and what the draft model keeps."""

from __future__ import annotations

import numpy as np
import pytest

from treewright.core.claims import ABSENT
from treewright.core.errors import InputError
from treewright.core.request import Sampling
from treewright.methods.speculate.rasd import Config, pruned, retrieved
from treewright.models.tables import Table
from treewright.parts.propose.trees import Trie

TARGET = Table(6, 1, order=2, sharpness=2.0)
DRAFT = Table(6, 9, like=TARGET, likeness=0.7)
PROMPTS = [(1, 2, 3, 1, 2, 4, 1, 2), (5,), (3, 3, 3)]


def prefixes(trie: Trie) -> set[tuple[int, ...]]:
    return {tuple(trie.path(node)) for node in range(1, len(trie))}


def found_by_hand(text: list[int], longest: int, width: int) -> dict[tuple[int, ...], int]:
    """How often each token sequence followed the longest run of last tokens that stood before."""
    for size in range(min(longest, len(text) - 1), 0, -1):
        ends = [end for end in range(size, len(text)) if text[end - size : end] == text[-size:]]
        if ends:
            counts: dict[tuple[int, ...], int] = {}
            for end in ends:
                path = text[end : end + width]
                for size in range(1, len(path) + 1):
                    counts[tuple(path[:size])] = counts.get(tuple(path[:size]), 0) + 1
            return counts
    return {}


def top(table: Table, prefix: list[int], count: int) -> list[int]:
    return np.argsort(-table.logits(prefix), kind="stable")[:count].tolist()


def drafted_by_hand(prefix: list[int], config: Config) -> set[tuple[int, ...]]:
    """A beam over path probabilities; every child of a beam's node is offered, the best nodes stay."""
    offered: dict[tuple[int, ...], float] = {}
    beam = {(): 0.0}
    for _ in range(config.depth):
        level = {}
        for path, value in beam.items():
            logits = DRAFT.logits([*prefix, *path])
            for token in top(DRAFT, [*prefix, *path], config.k):
                level[*path, token] = value + logits[token] - np.log(np.exp(logits).sum())
        offered |= level
        beam = dict(sorted(level.items(), key=lambda item: -item[1])[: config.beam])
    return set(sorted(offered, key=offered.__getitem__, reverse=True)[: config.nodes])


@pytest.mark.parametrize("seed", range(5))
def test_retrieval_counts_what_followed_before(seed):
    text = np.random.default_rng(seed).integers(0, 3, 30)
    trie, counts = retrieved(text, Config(max_ngram=3, length=4), 9)
    expected = found_by_hand(text.tolist(), 3, 4)
    assert {tuple(trie.path(node)): counts[node] for node in range(1, len(trie))} == expected
    assert len(retrieved(text, Config(), 0)[0]) == 1


def test_pruning_goes_by_the_first_token_of_a_branch():
    trie = Trie()
    for path in ((1, 2, 3), (2, 1), (1, 4)):
        trie.insert(path)
    stays = pruned(trie, {1})
    assert {tuple(trie.path(node)) for node in range(1, len(trie)) if stays[node]} == {(1,), (1, 2), (1, 2, 3), (1, 4)}


@pytest.mark.parametrize("keep", [1, 2, 6])
@pytest.mark.parametrize("config", [{"nodes": 6, "depth": 3, "beam": 2, "k": 2}, {"nodes": 4, "depth": 1}])
def test_the_claims_are_the_union_of_both_trees(keep, config, decode, watcher):
    """Size |A| + |B| - |A and B|; no two siblings share a token."""
    settings = Config(**config, keep=keep, retrieved=40, max_ngram=2, length=4)

    def look(outcome) -> None:
        forest = outcome.round.forest
        for row in range(forest.rows):
            text = outcome.round.text.of(row).tolist()
            text = text[: len(text) - len(outcome.emitted[row])]
            present = [column for column in range(1, forest.columns) if forest.token[row, column] != ABSENT]
            paths = [tuple(forest.path_tokens(row, column)) for column in present]
            assert len(set(paths)) == len(paths)
            room = int(outcome.round.deepest[row]) + len(outcome.emitted[row])
            first = top(DRAFT, text, keep)
            found = {path for path in found_by_hand(text, 2, 4) if path[0] in first and len(path) <= room}
            drafted = {path for path in drafted_by_hand(text, settings) if len(path) <= room}
            if room >= settings.depth:
                assert set(paths) == found | drafted

    options = {
        name: getattr(settings, name) for name in ("nodes", "retrieved", "depth", "beam", "k", "keep", "max_ngram", "length")
    }
    decode(TARGET, "rasd", PROMPTS, options, DRAFT, [watcher(look)], max_new_tokens=25)


def test_the_draft_model_keeps_the_answers_of_the_claims_it_was_asked_about(decode, watcher):
    """A claim's column on the draft model leads down the same tokens; claims that only retrieval made have none."""
    asked: list[tuple] = []

    class Watched(Table):
        def open(self, *arguments):
            session = super().open(*arguments)
            score, adopt = session.score, session.adopt
            session.score = lambda forest: (asked.append((forest,)), score(forest))[1]
            session.adopt = lambda columns: (asked.append((asked[-1][0], columns)), adopt(columns))[1]
            return session

    def look(outcome) -> int:
        own, columns = asked[-1]
        forest, shared = outcome.round.forest, 0
        for row, column in np.argwhere(columns > 0).tolist():
            assert own.path_tokens(row, int(columns[row, column])) == forest.path_tokens(row, column)
            shared += 1
        known = {(row, *own.path_tokens(row, column)) for row in range(own.rows) for column in range(1, own.columns)}
        for row, column in np.argwhere((columns < 0) & (forest.token != ABSENT)).tolist():
            assert (row, *forest.path_tokens(row, column)) not in known
        return shared

    looks = watcher(look)
    draft = Watched(6, 9, like=TARGET, likeness=0.7)
    decode(TARGET, "rasd", PROMPTS, {"depth": 3, "beam": 3, "nodes": 7}, draft, [looks], max_new_tokens=20)
    assert min(looks.seen[:5]) >= 3


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_the_tokens_are_those_of_plain_decoding(temperature, decode):
    settings = dict(max_new_tokens=40, sampling=Sampling(temperature), seed=4)
    found = decode(TARGET, "rasd", PROMPTS, {"nodes": 8, "depth": 3}, DRAFT, **settings)
    assert found.tokens == decode(TARGET, "plain", PROMPTS, **settings).tokens
    assert found.accepted() > 20


def test_retrieval_reaches_deeper_than_the_draft(decode):
    """Retrieval brings what the draft model does not: fewer calls with it than without, claims alike."""
    prompt = tuple(np.random.default_rng(0).integers(0, 6, 300).tolist())
    cold = Table(6, 2, order=1, sharpness=6.0)
    fused = decode(cold, "rasd", [prompt], {"nodes": 4, "depth": 2, "retrieved": 8}, Table(6, 7), max_new_tokens=40)
    alone = decode(cold, "rasd", [prompt], {"nodes": 12, "depth": 2, "retrieved": 1}, Table(6, 7), max_new_tokens=40)
    assert fused.tokens == alone.tokens
    assert fused.rounds() < alone.rounds()


@pytest.mark.parametrize("columns", [None, 30, 9, 3])
def test_fewer_columns_leave_the_text_as_it_is(columns, decode, greedy_text):
    decoded = decode(TARGET, "rasd", PROMPTS, {}, DRAFT, columns=columns, max_new_tokens=20)
    assert decoded.tokens == [greedy_text(TARGET, prompt, 20) for prompt in PROMPTS]
    assert max(len(step.token) for step in decoded.trace().steps) <= (41 if columns is None else max(1, columns // 1))


def test_a_draft_with_another_tokenizer(translated, decode, greedy_text):
    models = translated("shared")
    prompts = [(0, 1, 2, 0, 1), (2,)]
    decoded = decode(models["target"], "rasd", prompts, {"nodes": 6, "depth": 2}, models["draft"], max_new_tokens=20)
    assert decoded.tokens == [greedy_text(models["target"], prompt, 20) for prompt in prompts]
    assert decoded.accepted() > 3


def test_one_draft_call_for_each_level(decode):
    decoded = decode(TARGET, "rasd", PROMPTS[:1], {"depth": 3}, DRAFT, max_new_tokens=30)
    calls = [call.model for call in decoded.trace().calls if call.kind == "score"]
    assert calls[:8] == ["draft", "draft", "draft", "target"] * 2


@pytest.mark.parametrize("name", ["nodes", "retrieved", "depth", "beam", "k", "keep", "max_ngram", "length"])
def test_options_below_one_are_refused(name):
    with pytest.raises(InputError, match=f"{name} is 0; allowed: an integer >= 1"):
        Config(**{name: 0})
