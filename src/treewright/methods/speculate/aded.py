"""ADED: a table of tri-grams stands for the model's law, and a tree search in it finds the continuations to draft.

Liu et al. 2024, "Adaptive Draft-Verification for Efficient Large Language Model Decoding"
(https://arxiv.org/abs/2407.12021; released code: liuxukun2000/Adaptix). M[(a, b)][c] says how likely c is after a, b. From
the last two tokens a Monte Carlo tree search runs through the table: a walk takes the child with the largest
S/n + (c1 + ln((N + c2 + 1) / c2)) P sqrt(N) / (1 + n), children that were never visited first; where it ends, all successors
become children, the last of them is rolled out to `depth` new tokens by the table, and 1 + the sum of the table's values on
the way is added to every node above. The `paths` most visited prefixes, each with its best successor, are the draft. The table
is shared by all rows, kept from one generation to the next, and learns from each text (`update`).

Cost: one target call a round, no other model. Lossless: sample-then-match; the search's chance has a stream of its own.

Beside the paper: the released code's own sampling draws a token again where no draft matches, which is biased above
temperature 0. Values are neither normalised nor a product, as in the released code. Each round adds `step` to every tri-gram
among the last `recent` tokens again, so what is near is favoured several times over. Successors come in one order: the
likeliest first, then by token, and the last one created is the least likely. `update=llm_topk`, the default, follows the
paper's text: the model's own probabilities of its k best tokens at each accepted claim are put into the table where they are
larger than what is there. `update=context` is what the released code does: it learns from the last tokens alone.
`rollouts=likeliest` rolls out without chance.
"""

from __future__ import annotations

import heapq
import math
import random
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Literal

import numpy as np

from treewright.core.claims import ABSENT
from treewright.core.errors import require
from treewright.core.randomness import SEARCH
from treewright.core.roles import Outcome, Parts, Round
from treewright.parts.propose.corpus import read_corpus, version_of
from treewright.parts.propose.outputs import by_key
from treewright.parts.propose.sparse import largest_chances
from treewright.parts.propose.trees import Trie, place
from treewright.parts.verify.sample_then_match import SampleThenMatch

CARD = {
    "title": "Adaptive Draft-Verification for Efficient Large Language Model Decoding",
    "year": 2024,
    "link": "https://arxiv.org/abs/2407.12021",
    "card": 0,
    "aliases": ["Adaptix"],
    "roles": ["propose", "verify", "observe"],
    "models": [],
    "needs": ["left_to_right", "tree"],
    "claims": ["lossless"],
    "tables": {"rollouts": "likeliest"},
}

Pair = tuple[int, int]


@dataclass(frozen=True)
class Config:
    """
    corpus: a file of token ids (.npz, .jsonl, .txt) whose tri-grams fill the table; empty to begin with an empty one
    update: what the table learns from: the last tokens of each text and the model's own probabilities, or those tokens alone
    nodes: the most claims a round
    iterations: walks of a search
    depth: new tokens that a walk may hold
    paths: the most visited prefixes that become the draft
    successors: the most probable successors of a pair that are searched
    step: what is added to a tri-gram's value where it is seen
    most: the largest value
    recent: last tokens of a text that the table learns from in each round
    c1: weight of exploration
    c2: visits from which on exploration grows
    topk: of the model's probabilities, the number that is put into the table (llm_topk)
    pairs: the most pairs in the table; the one that was new the longest ago leaves
    rollouts: continue a new node by chance, or by the likeliest successor
    """

    corpus: str = ""
    update: Literal["llm_topk", "context"] = "llm_topk"
    nodes: int = 64
    iterations: int = 150
    depth: int = 3
    paths: int = 24
    successors: int = 12
    step: float = 0.04
    most: float = 3.0
    recent: int = 16
    c1: float = 32.0
    c2: float = 8.0
    topk: int = 8
    pairs: int = 500_000
    rollouts: Literal["sampled", "likeliest"] = "sampled"

    def __post_init__(self) -> None:
        require(self.update in ("llm_topk", "context"), "update", self.update, "'llm_topk' or 'context'")
        require(self.rollouts in ("sampled", "likeliest"), "rollouts", self.rollouts, "'sampled' or 'likeliest'")
        for name in ("nodes", "iterations", "depth", "paths", "successors", "topk", "pairs"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "an integer >= 1")
        require(self.recent >= 3, "recent", self.recent, "an integer >= 3, the tokens of a tri-gram")
        require(0 < self.step <= self.most < math.inf, "step", self.step, f"a number > 0 and at most `most` ({self.most})")
        require(0 <= self.c1 < math.inf, "c1", self.c1, "a number >= 0")
        require(0 < self.c2 < math.inf, "c2", self.c2, "a number > 0")


class Trigrams:
    """M[(a, b)][c], and the best successors of each pair in a fixed order."""

    def __init__(self, successors: int, pairs: int) -> None:
        self._successors, self._pairs = successors, pairs
        self._values: dict[Pair, dict[int, float]] = {}
        self._best: dict[Pair, tuple[list[int], list[float], list[float]]] = {}
        self._shared: set[Pair] = set()

    def copy(self) -> Trigrams:
        """A table that begins as this one, which must not change any more; a row is copied when it changes."""
        table = Trigrams(self._successors, self._pairs)
        table._values, table._shared = dict(self._values), set(self._values)
        return table

    def __len__(self) -> int:
        return len(self._values)

    def count(self, texts: Iterable[np.ndarray]) -> None:
        """Fills the table with the frequencies of the tri-grams of texts [T], each pair's most frequent successors."""
        grams = [np.lib.stride_tricks.sliding_window_view(text, 3) for text in texts if len(text) >= 3]
        if not grams:
            return
        found, times = np.unique(np.concatenate(grams), axis=0, return_counts=True)
        # By pair, then by falling frequency, then by token: rows of a pair stand together, its best ones first.
        order = np.lexsort((found[:, 2], -times, found[:, 1], found[:, 0]))
        counted: dict[Pair, dict[int, int]] = {}
        for (first, second, third), number in zip(found[order].tolist(), times[order].tolist(), strict=True):
            counted.setdefault((first, second), {})[third] = number
        for pair, below in counted.items():
            total = sum(below.values())
            best = list(below.items())[: self._successors]
            self._row(pair).update({token: number / total for token, number in best})

    def reinforce(self, text: Sequence[int], step: float, most: float) -> None:
        """Adds `step` to the value of every tri-gram of text [T], up to `most`."""
        for first, second, third in zip(text, text[1:], text[2:], strict=False):
            row = self._row((first, second))
            row[third] = min(most, row.get(third, 0.0) + step)

    def raise_to(self, pair: Pair, chances: Mapping[int, float]) -> None:
        """Puts chances in where they are larger than what is there."""
        row = self._row(pair)
        for token, chance in chances.items():
            row[token] = max(row.get(token, 0.0), chance)

    def _row(self, pair: Pair) -> dict[int, float]:
        self._best.pop(pair, None)
        row = self._values.get(pair)
        if row is None:
            if len(self._values) >= self._pairs:
                oldest = next(iter(self._values))
                del self._values[oldest]
                self._best.pop(oldest, None)
                self._shared.discard(oldest)
            row = self._values[pair] = {}
        elif pair in self._shared:
            self._shared.remove(pair)
            row = self._values[pair] = dict(row)
        return row

    def value(self, pair: Pair, token: int) -> float:
        """M[pair][token], 0 where it was never seen."""
        return self._values.get(pair, {}).get(token, 0.0)

    def best(self, pair: Pair) -> tuple[list[int], list[float], list[float]]:
        """The best successors of a pair, the likeliest first, then by token; their values, and those cumulated."""
        known = self._best.get(pair)
        if known is None:
            row = self._values.get(pair)
            if row is None:
                return [], [], []
            top = heapq.nsmallest(self._successors, row.items(), key=lambda entry: (-entry[1], entry[0]))
            values = [value for _, value in top]
            known = self._best[pair] = [token for token, _ in top], values, list(accumulate(values))
        return known


class Search:
    """Monte Carlo tree search from one pair of tokens. Nodes are numbers into flat lists; node 0 is the pair itself."""

    def __init__(self, table: Trigrams, pair: Pair, config: Config, chance: random.Random | None) -> None:
        self._table, self._config, self._chance = table, config, chance
        self.pair, self.parent, self.depth = [pair], [ABSENT], [0]
        self.prior, self.visits, self.total = [0.0], [0], [0.0]
        self.along = [0.0]
        self.children: list[range | None] = [None]
        self._unvisited = [0]

    def run(self) -> None:
        """All walks of a search."""
        for _ in range(self._config.iterations):
            self.walk()

    def walk(self) -> None:
        """Selects a leaf, makes its children, rolls out the last of them, and adds the return to every node above."""
        node = 0
        while self.children[node]:
            node = self._select(node)
        if self.depth[node] < self._config.depth and self.children[node] is None:
            node = self._expand(node)
        gained = 1.0 + self._rolled_out(node)
        while node >= 0:
            if self.visits[node] == 0 and node:
                self._unvisited[self.parent[node]] -= 1
            self.visits[node] += 1
            self.total[node] += gained
            node = self.parent[node]

    def score(self, node: int) -> float:
        """What selection maximises, of a visited node."""
        config, above, here = self._config, self.visits[self.parent[node]], self.visits[node]
        explore = config.c1 + math.log((above + config.c2 + 1) / config.c2)
        return self.total[node] / here + explore * self.prior[node] * math.sqrt(above) / (1 + here)

    def _select(self, node: int) -> int:
        below, visits = self.children[node], self.visits
        assert below is not None
        if self._unvisited[node]:
            return next(child for child in below if not visits[child])
        config, above, total, prior = self._config, visits[node], self.total, self.prior
        explore = (config.c1 + math.log((above + config.c2 + 1) / config.c2)) * math.sqrt(above)
        best, found = -math.inf, below.start
        for child in below:
            here = visits[child]
            score = total[child] / here + explore * prior[child] / (1 + here)
            if score > best:
                best, found = score, child
        return found

    def _expand(self, node: int) -> int:
        tokens, values, _ = self._table.best(self.pair[node])
        first, made = len(self.pair), len(tokens)
        self.children[node] = range(first, first + made)
        self._unvisited[node] = made
        second, deeper, along = self.pair[node][1], self.depth[node] + 1, self.along[node]
        self.pair += [(second, token) for token in tokens]
        self.parent += [node] * made
        self.depth += [deeper] * made
        self.prior += values
        self.along += [along + value for value in values]
        self.visits += [0] * made
        self.total += [0.0] * made
        self.children += [None] * made
        self._unvisited += [0] * made
        return first + made - 1 if made else node

    def _rolled_out(self, node: int) -> float:
        """The sum of the table's values down to a node and on to the depth of a walk."""
        pair, summed = self.pair[node], self.along[node]
        for _ in range(self._config.depth - self.depth[node]):
            tokens, values, cumulated = self._table.best(pair)
            if not tokens:
                break
            chosen = 0
            if self._chance is not None:
                chosen = min(bisect_right(cumulated, self._chance.random() * cumulated[-1]), len(tokens) - 1)
            summed += values[chosen]
            pair = pair[1], tokens[chosen]
        return summed

    def draft(self, most: int) -> Trie:
        """The most visited prefixes, each with its best successor, as a trie of at most `most` claims."""
        visited = [node for node in range(len(self.pair)) if self.visits[node]]
        trie, place_of = Trie(), {0: 0}
        for node in sorted(visited, key=lambda node: (-self.visits[node], node))[: self._config.paths]:
            if node:
                if len(trie) > most:
                    break
                place_of[node] = trie.add(place_of[self.parent[node]], self.pair[node][1])
            tokens = self._table.best(self.pair[node])[0]
            if tokens and len(trie) <= most:
                trie.add(place_of[node], tokens[0])
        return trie


class Adaptive:
    """Proposer and observer around the table."""

    prompt_top = 0

    def __init__(self, config: Config) -> None:
        self._config = config
        self._version = version_of(config.corpus) if config.corpus else 0

    def table(self, round: Round) -> Trigrams:
        """The table, filled from the corpus when it is first asked for and kept with the model."""
        config = self._config
        learns = config.update, config.step, config.most, config.recent, config.topk
        key = ("aded", config.corpus, self._version, round.vocabulary, config.successors, config.pairs, learns)
        return round.memories.model(key, lambda: self._counted(round).copy())

    def _counted(self, round: Round) -> Trigrams:
        """The table of the corpus, before anything was learned."""
        config = self._config
        empty = Trigrams(config.successors, config.pairs)
        if not config.corpus:
            return empty

        def count() -> Trigrams:
            empty.count(read_corpus(config.corpus, round.vocabulary))
            return empty

        key = ("aded", config.corpus, self._version, round.vocabulary, config.successors, config.pairs)
        return round.memories.loaded(key, count)

    def propose(self, round: Round) -> None:
        config, table = self._config, self.table(round)
        texts = [round.text.of(row)[-config.recent :].tolist() for row in range(round.rows)]
        for row in by_key(round):
            table.reinforce(texts[row], config.step, config.most)
        drafts = []
        for row, text in enumerate(texts):
            most, deepest = min(config.nodes, round.claims - 1), int(round.deepest[row])
            if most < 1 or deepest < 1 or len(text) < 2:
                drafts.append(Trie())
                continue
            search = Search(
                table, (text[-2], text[-1]), replace(config, depth=min(config.depth, deepest)), self._noise(round, row)
            )
            search.run()
            drafts.append(search.draft(most))
        place(round, drafts)

    def _noise(self, round: Round, row: int) -> random.Random | None:
        """Chance for the rollouts of one search, the same for the same seed, row and position."""
        if self._config.rollouts == "likeliest":
            return None
        return random.Random(round.randomness.uniform(round.keys[row], round.position(row, 0), SEARCH))

    def read_prompts(self, round: Round, prompts: Sequence[Sequence[int]], top: np.ndarray) -> None:
        """Predictions at prompt positions are not asked for."""

    def observe(self, outcome: Outcome) -> None:
        if self._config.update != "llm_topk":
            return
        round, table = outcome.round, self.table(outcome.round)
        answers = round.answers["target"]
        for row in by_key(round):
            text = round.text.of(row).tolist()
            before = len(text) - len(outcome.emitted[row])
            for step, column in enumerate([0, *outcome.verdict.paths[row]]):
                end = before + step
                if end >= 2:
                    tokens, chances = largest_chances(answers.row(row, column), self._config.topk)
                    table.raise_to((text[end - 2], text[end - 1]), dict(zip(tokens, chances, strict=True)))


def parts(config: Config) -> Parts:
    adaptive = Adaptive(config)
    return Parts(propose=adaptive, verify=SampleThenMatch(), observe=(adaptive,), claims=config.nodes + 1)
