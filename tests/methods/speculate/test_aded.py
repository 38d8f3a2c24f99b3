"""ADED: the table against a count, the search against its formula and an exhaustive one, losslessness."""

from __future__ import annotations

import itertools
import math
import random
from collections import Counter
from typing import Any

import numpy as np
import pytest

from treewright.core.errors import InputError
from treewright.core.randomness import SEARCH, Keyed
from treewright.core.request import Sampling
from treewright.core.roles import Parts
from treewright.methods.speculate.aded import Adaptive, Config, Search, Trigrams, parts
from treewright.models.tables import Table
from treewright.parts.propose.corpus import write_corpus
from treewright.parts.propose.sparse import largest_chances
from treewright.testing import laws
from treewright.testing.bench import SETTINGS, Bench
from treewright.testing.definition import plain_law
from treewright.testing.enumerate import Outcomes, total_variation

TABLE = Table(6, seed=3, order=2, sharpness=2.0)
PROMPTS = [(1, 2, 3, 4, 1, 2), (0,), (2, 2, 1)]


def random_text(seed: int, length: int = 200, tokens: int = 5) -> list[int]:
    chance = random.Random(seed)
    return [min(chance.randrange(tokens), chance.randrange(tokens)) for _ in range(length)]


def filled(seed: int = 0, successors: int = 12) -> Trigrams:
    table = Trigrams(successors, 1000)
    table.count([np.array(random_text(seed))])
    return table


def test_counts_of_a_corpus_are_those_of_a_loop():
    texts = [random_text(1, 300), random_text(2, 2), random_text(3, 50), [4, 4, 4]]
    table = Trigrams(3, 1000)
    table.count(map(np.array, texts))
    grams = Counter(gram for text in texts for gram in zip(text, text[1:], text[2:], strict=False))
    for pair in itertools.product(range(5), repeat=2):
        below = {third: count for (*two, third), count in grams.items() if tuple(two) == pair}
        best = sorted(below, key=lambda token: (-below[token], token))[:3]
        assert table.best(pair)[0] == best
        assert table.best(pair)[1] == pytest.approx([below[token] / sum(below.values()) for token in best])


def test_recent_tokens_are_favoured_up_to_the_most():
    table = Trigrams(12, 1000)
    for _ in range(10):
        table.reinforce([1, 2, 3, 1, 2, 3, 9], 0.04, 0.5)
    assert table.value((1, 2), 3) == 0.5
    assert table.value((2, 3), 1) == table.value((2, 3), 9) == pytest.approx(0.4)
    assert table.best((2, 3))[0] == [1, 9] and table.value((3, 9), 1) == 0.0


def test_the_oldest_pair_leaves_a_full_table():
    table = Trigrams(12, 2)
    table.reinforce([1, 2, 3, 4, 5], 1.0, 3.0)
    assert len(table) == 2 and table.best((1, 2))[0] == [] and table.best((3, 4))[0] == [5]


def test_selection_has_the_papers_formula():
    search = Search(filled(), (0, 1), Config(iterations=60), None)
    search.run()
    for node in (child for child in search.children[0] if search.visits[child]):
        above, here = search.visits[0], search.visits[node]
        explore = 32 + math.log((above + 8 + 1) / 8)
        value = search.total[node] / here + explore * search.prior[node] * math.sqrt(above) / (1 + here)
        assert search.score(node) == pytest.approx(value)
    assert search._select(0) == max(search.children[0], key=search.score)


def test_one_walk_after_another_by_hand():
    """M: (0,1) -> 2 at 0.6 and 3 at 0.4; (1,2) -> 5 at 0.9; nothing else."""
    table = Trigrams(12, 100)
    table.raise_to((0, 1), {3: 0.4, 2: 0.6})
    table.raise_to((1, 2), {5: 0.9})
    search = Search(table, (0, 1), Config(), None)
    search.walk()  # Makes 2 and 3, and rolls out from 3, which leads nowhere.
    assert (search.pair[1:], search.visits, search.total) == ([(1, 2), (1, 3)], [1, 0, 1], [1.4, 0.0, 1.4])
    search.walk()  # 2 was never visited: its child 5 is made and rolled out.
    assert search.pair[3] == (2, 5) and search.visits == [2, 1, 1, 1] and search.total[3] == pytest.approx(1 + 0.6 + 0.9)
    assert search.draft(64).tokens[1:] == [2, 5, 3]
    assert search.draft(1).tokens[1:] == [2]


def test_nodes_are_counted_and_every_edge_is_in_the_table():
    table = filled()
    search = Search(table, (1, 1), Config(), random.Random(1))
    search.run()
    assert search.visits[0] == 150
    for node, below in enumerate(search.children):
        if below:
            passed = sum(search.visits[child] for child in below)
            # The last child of all is visited once before it has children of its own.
            assert search.visits[node] - passed in ((0, 1) if node else (0,))
            assert {search.pair[child] for child in below} == {
                (search.pair[node][1], t) for t in table.best(search.pair[node])[0]
            }
    assert max(search.depth) == 3
    draft = search.draft(64)
    for node in range(1, len(draft)):
        *before, token = [1, 1, *draft.path(node)]
        assert table.value((before[-2], before[-1]), token) > 0


def test_visits_gather_on_the_best_sum():
    table = filled(4)
    config = Config(iterations=6000, c1=1.0)
    search = Search(table, (0, 0), config, None)
    search.run()
    node = 0
    while search.children[node]:
        node = max(search.children[node], key=lambda child: search.visits[child])
    path = {(0, 0, *tail): 0.0 for tail in itertools.product(range(5), repeat=3)}
    for tokens in path:
        values = [table.value(tokens[at : at + 2], tokens[at + 2]) for at in range(3)]
        path[tokens] = sum(values) if all(values) else 0.0
    assert search.along[node] == pytest.approx(max(path.values()))


def test_the_same_seed_searches_the_same_tree(decode):
    settings = dict(max_new_tokens=25, sampling=Sampling(temperature=0.6), seed=4)
    one, other = (decode(TABLE, "aded", PROMPTS, **settings) for _ in range(2))
    for row in range(3):
        assert [step.token for step in one.trace(row).steps] == [step.token for step in other.trace(row).steps]


def test_order_of_rows_changes_nothing(round_of):
    claimed = []
    for order in ((0, 1, 2), (2, 0, 1)):
        texts = [random_text(seed, 30) for seed in range(3)]
        round = round_of([texts[row] for row in order])
        round.keys = [(row, 0) for row in order]
        Adaptive(Config()).propose(round)
        claimed.append({row: [t for t in round.forest.token[slot].tolist() if t >= 0] for slot, row in enumerate(order)})
    assert claimed[0] == claimed[1]


def test_a_copy_begins_as_the_table_and_leaves_it_as_it_is():
    pairs = [(0, 1), (1, 2), (2, 0)]
    table = Trigrams(3, 3)
    table.count([np.array([0, 1, 2, 0, 1, 3])])
    before = [table.best(pair) for pair in pairs]
    copy, whole = table.copy(), table.copy()
    assert [copy.best(pair) for pair in pairs] == before == [table.copy().best(pair) for pair in pairs]
    for _ in range(2):
        copy.reinforce([0, 1, 3], 0.25, 9.0)
        copy.raise_to((2, 0), {5: 0.75})
    assert copy.value((0, 1), 3) == 1.0 and copy.value((2, 0), 5) == 0.75 and copy.best((0, 1))[0] == [3, 2]
    whole.reinforce([4, 4, 4, 0, 1, 2], 0.25, 9.0)
    assert [pair for pair in pairs if whole.best(pair)[0]] == [(0, 1)] and whole.value((0, 1), 2) == 0.25, "old pairs left"
    assert [table.best(pair) for pair in pairs] == before and table.value((0, 1), 3) == 0.5


def test_the_models_own_chances_enter_the_table(decode):
    memories: dict[Any, Any] = {}
    decoded = decode(TABLE, "aded", [(1, 2, 3)], {"topk": 3}, memories=memories, max_new_tokens=10)
    (table,) = memories.values()
    text = [1, 2, 3, *decoded.tokens[0]]
    for end in range(3, len(text)):
        tokens, chances = largest_chances(TABLE.logits(text[:end]), 3)
        for token, chance in zip(tokens, chances, strict=True):
            assert table.value((text[end - 2], text[end - 1]), token) >= chance - 1e-6
    plain: dict[Any, Any] = {}
    decode(TABLE, "aded", [(1, 2, 3)], {"update": "context"}, memories=plain, max_new_tokens=10)
    (other,) = plain.values()
    assert len(other.best((2, 3))[0]) == 1 < len(table.best((2, 3))[0])


@pytest.mark.parametrize("update", ["context", "llm_topk"])
@pytest.mark.parametrize("columns", [None, 9, 3])
def test_sampled_tokens_are_those_of_plain_sampling(update, columns, decode):
    settings = dict(max_new_tokens=40, sampling=Sampling(temperature=0.6), seed=2)
    drafted = decode(TABLE, "aded", PROMPTS, {"update": update, "iterations": 40}, columns=columns, **settings)
    assert drafted.tokens == decode(TABLE, "plain", PROMPTS, **settings).tokens
    assert drafted.accepted() > 0 or columns == 3


def test_a_corpus_helps(tmp_path, decode, greedy_text):
    texts = [[*prompt, *greedy_text(TABLE, prompt, 40)] for prompt in PROMPTS]
    write_corpus(tmp_path / "corpus.npz", texts)
    helped = decode(TABLE, "aded", PROMPTS, {"corpus": str(tmp_path / "corpus.npz")}, max_new_tokens=40)
    alone = decode(TABLE, "aded", PROMPTS, max_new_tokens=40)
    assert helped.tokens == alone.tokens == [text[-40:] for text in texts]
    assert helped.trace(1).model_calls < alone.trace(1).model_calls


class Seeded(Outcomes):
    """All outcomes of what is verified; the rollouts' chance is fixed by the seed."""

    def uniform(self, row: Any, position: int, stream: int, trial: int = 0) -> float:
        assert stream == SEARCH
        return Keyed(5).uniform(row, position, stream, trial)


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_sampled_rollouts_keep_the_law(setting):
    def make() -> Parts:
        return parts(Config(iterations=20, nodes=5))

    case = Bench(make).case(setting)
    chance, law = Seeded((case.row, 0), Keyed(1)), dict[tuple[int, ...], float]()
    while True:
        chance.begin()
        tokens, _ = case.play(chance)
        law[tokens] = law.get(tokens, 0.0) + chance.probability
        if not chance.advance():
            break
    assert total_variation(law, plain_law(case)) < 1e-9


@pytest.mark.parametrize("options", [{"update": "context"}, {"iterations": 10, "topk": 2}], ids=str)
def test_laws_hold(options):
    assert laws.lossless("aded", {"iterations": 20} | options).total("accepted") > 0


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"update": "all"}, "update is all"), ({"rollouts": "none"}, "rollouts is none"), ({"nodes": 0}, "nodes is 0"),
        ({"recent": 2}, "recent is 2"), ({"step": 0.0}, "step is 0"), ({"step": 4.0}, "step is 4"), ({"c2": 0.0}, "c2 is 0"),
        ({"c1": -1.0}, "c1 is -1"), ({"depth": 0}, "depth is 0"), ({"pairs": 0}, "pairs is 0"),
        ({"corpus": "a.npz"}, "not exist"),
    ],
)  # fmt: skip
def test_bad_options(options, match):
    with pytest.raises(InputError, match=match):
        parts(Config(**options))


def test_one_token_of_context_drafts_nothing(round_of):
    round = round_of([[1]])
    Adaptive(Config()).propose(round)
    assert round.forest.columns == 1
