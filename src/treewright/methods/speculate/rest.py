"""REST: what followed the longest run of last tokens that a datastore holds, its most frequent continuations as a tree.

He et al. 2023, "REST: Retrieval-Based Speculative Decoding" (https://arxiv.org/abs/2311.08252). The datastore is a corpus
of token ids in suffix arrays. The longest of the last `longest` to `shortest` tokens that occurs there is looked up; of at
most `hits` places the next `length` tokens are taken, every prefix of them is counted, and the `nodes` most frequent prefixes
are the tree.

Cost: one target call a round, no other model. Lossless. `corpus` names a file of token ids (see
`treewright.parts.propose.corpus.write_corpus`); with `learn`, and without a corpus, outputs enter the datastore as they are
made, and stay there from one generation to the next.

Beside the paper: the released code draws the next token before it looks the text up and draws it again where no draft
matches, which is biased above temperature 0; here the text is looked up as it stands and sample-then-match verifies. Nodes are
taken from a heap that opens a prefix only when it was taken, so ties neither cut a path nor exceed `nodes`. Of more than
`hits` places an even selection counts. The text itself is not searched until it has entered the datastore.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from treewright.core.claims import ABSENT
from treewright.core.errors import require
from treewright.core.roles import Outcome, Parts, Round
from treewright.parts.propose.corpus import read_corpus, version_of
from treewright.parts.propose.outputs import Key, Outputs
from treewright.parts.propose.suffix_array import SuffixArray
from treewright.parts.propose.trees import Trie, place
from treewright.parts.verify.sample_then_match import SampleThenMatch

CARD = {
    "title": "REST: Retrieval-Based Speculative Decoding",
    "year": 2023,
    "link": "https://arxiv.org/abs/2311.08252",
    "card": None,
    "aliases": ["retrieval-based speculative decoding"],
    "roles": ["propose", "verify", "observe"],
    "models": [],
    "needs": ["left_to_right", "tree"],
    "claims": ["lossless"],
    "tables": {"fresh": 1},
}

SHARD = 1 << 18
"""Shards of outputs are merged while they are smaller than this, so that no merge takes long."""


@dataclass(frozen=True)
class Config:
    """
    corpus: a file of token ids (.npz, .jsonl, .txt); empty for the outputs so far alone
    learn: outputs enter the datastore
    nodes: the most claims a round
    length: tokens taken behind each place
    longest: the longest run of last tokens that is looked up
    shortest: the shortest run that is looked up
    hits: places that are counted at most
    fresh: new tokens of a row that are gathered before they enter the datastore
    history: tokens of outputs beyond which the oldest shard of them leaves
    """

    corpus: str = ""
    learn: bool = True
    nodes: int = 64
    length: int = 10
    longest: int = 16
    shortest: int = 2
    hits: int = 5000
    fresh: int = 64
    history: int = 1_000_000

    def __post_init__(self) -> None:
        require(bool(self.corpus) or self.learn, "corpus", "empty", "a file of token ids, or learn true: else nothing is found")
        for name in ("nodes", "length", "shortest", "hits", "fresh", "history"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "an integer >= 1")
        require(self.longest >= self.shortest, "longest", self.longest, f"an integer >= shortest ({self.shortest})")


def frequent_prefixes(following: np.ndarray, nodes: int) -> Trie:
    """The `nodes` most frequent prefixes of the rows of following [H, L] (sorted, ABSENT behind a row's end), parents before
    their children; of equally frequent ones the one that was found first."""
    trie, made = Trie(), 0
    waiting: list[tuple[int, int, int, int, int, int]] = []

    def offer(above: int, first: int, end: int, depth: int) -> None:
        nonlocal made
        if depth == following.shape[1]:
            return
        for start, stop in _runs(following[first:end, depth], nodes):
            heapq.heappush(waiting, (start - stop, made, above, first + start, first + stop, depth))
            made += 1

    if len(following):
        offer(0, 0, len(following), 0)
    while waiting and len(trie) <= nodes:
        _, _, above, first, end, depth = heapq.heappop(waiting)
        node = trie.add(above, int(following[first, depth]))
        if len(trie) <= nodes:
            offer(node, first, end, depth + 1)
    return trie


def _runs(column: np.ndarray, most: int) -> list[tuple[int, int]]:
    """Start and end of the `most` longest runs of equal tokens in a sorted column, in order; ABSENT is none."""
    if len(column) == 1:
        return [(0, 1)] if column[0] != ABSENT else []
    edges = np.concatenate([[0], np.flatnonzero(column[1:] != column[:-1]) + 1, [len(column)]])
    edges = edges[1:] if column[0] == ABSENT else edges
    longest = np.sort(np.argsort(edges[:-1] - edges[1:], kind="stable")[:most])
    return list(zip(edges[longest].tolist(), edges[longest + 1].tolist(), strict=True))


@dataclass(slots=True)
class Tail:
    """An output's tokens from the first place on that is not in the datastore yet."""

    tokens: list[int] = field(default_factory=list)


def span_of(config: Config) -> int:
    """Tokens by which places are compared: a tail and what follows it."""
    return config.longest + config.length


def index_corpus(config: Config, vocabulary: int) -> SuffixArray:
    """The suffix array of the corpus. Raises InputError."""
    texts = read_corpus(config.corpus, vocabulary)
    return SuffixArray(texts, [len(text) for text in texts], span_of(config))


class Datastore:
    """Suffix arrays: one for the corpus, others for outputs, smaller ones merged into larger ones as they come."""

    def __init__(self, config: Config, corpus: SuffixArray | None = None) -> None:
        self._config, self._span = config, span_of(config)
        self._corpus = [] if corpus is None else [corpus]
        self._shards: list[tuple[SuffixArray, list[np.ndarray], list[int]]] = []
        self._outputs, self._tails = Outputs(), dict[Key, Tail]()

    @property
    def shards(self) -> list[SuffixArray]:
        """Every suffix array, the corpus' first."""
        return self._corpus + [shard for shard, _, _ in self._shards]

    @property
    def tokens(self) -> int:
        """Places that can be found."""
        return sum(shard.tokens for shard in self.shards)

    def begin(self, round: Round) -> None:
        """Lets the outputs in that were cut off by the rows which start in this round."""
        for key in self._outputs.begin(round):
            self._close(key)

    def learn(self, round: Round) -> None:
        """Takes in what the rows emitted. A place enters once what is looked up behind it is there, each place once."""
        for gain in self._outputs.gained(round):
            if gain.fresh:
                self._close(gain.key)
            tail = self._tails.setdefault(gain.key, Tail())
            tail.tokens += gain.tokens
            whole = len(tail.tokens) - self._span + 1
            if whole >= self._config.fresh:
                self._add([np.array(tail.tokens)], [whole])
                tail.tokens = tail.tokens[whole:]

    def _close(self, key: Key) -> None:
        tail = self._tails.pop(key, None)
        if tail is not None and tail.tokens:
            self._add([np.array(tail.tokens)], [len(tail.tokens)])

    def _add(self, texts: list[np.ndarray], starts: list[int]) -> None:
        while self._shards and self._shards[-1][0].tokens <= 2 * sum(starts) and sum(starts) < SHARD:
            _, before, known = self._shards.pop()
            texts, starts = before + texts, known + starts
        self._shards.append((SuffixArray(texts, starts, self._span), texts, starts))
        while len(self._shards) > 1 and sum(shard.tokens for shard, _, _ in self._shards) > self._config.history:
            del self._shards[0]

    def following(self, tail: Sequence[int], shortest: int, most: int) -> np.ndarray:
        """What stands behind the longest run, of `shortest` tokens at least, that `tail` ends in and that occurs: [H, length] for
        about `most` places at most, sorted; H = 0 if there is none."""
        config, shards = self._config, self.shards
        # What holds a run holds its shorter ends too, so the longest one is found by halving.
        low, high = shortest - 1, min(config.longest, len(tail))
        found: list[range] = []
        while low < high:
            middle = (low + high + 1) // 2
            ranges = [shard.find(tail[len(tail) - middle :]) for shard in shards]
            if any(ranges):
                low, found = middle, ranges
            else:
                high = middle - 1
        share = max(1.0, sum(map(len, found)) / most)
        parts = [
            shard.following(entries, low, config.length, max(1, int(len(entries) / share)))
            for shard, entries in zip(shards, found, strict=False) if entries
        ]  # fmt: skip
        if len(parts) <= 1:
            return parts[0] if parts else np.zeros((0, config.length), np.int64)
        rows = np.concatenate(parts)
        return rows[np.lexsort(rows.T[::-1])]


class Retrieval:
    """Proposer and observer around the datastore."""

    prompt_top = 0

    def __init__(self, config: Config) -> None:
        self._config = config
        self._version = version_of(config.corpus) if config.corpus else 0

    def datastore(self, round: Round) -> Datastore:
        """The datastore, made when it is first asked for and kept with the model."""
        config = self._config
        key = ("rest", replace(config, nodes=1, shortest=1, hits=1), self._version, round.vocabulary)
        return round.memories.model(key, lambda: Datastore(config, self._corpus(round)))

    def _corpus(self, round: Round) -> SuffixArray | None:
        config = self._config
        if not config.corpus:
            return None
        key = ("rest", config.corpus, self._version, round.vocabulary, span_of(config))
        return round.memories.loaded(key, lambda: index_corpus(config, round.vocabulary))

    def propose(self, round: Round) -> None:
        config, store = self._config, self.datastore(round)
        if config.learn:
            store.begin(round)
        drafts = []
        for row in range(round.rows):
            nodes = min(config.nodes, round.claims - 1)
            deepest = min(config.length, int(round.deepest[row]))
            if nodes < 1 or deepest < 1:
                drafts.append(Trie())
                continue
            following = store.following(round.text.of(row)[-config.longest :].tolist(), config.shortest, config.hits)
            drafts.append(frequent_prefixes(following[:, :deepest], nodes))
        place(round, drafts)

    def read_prompts(self, round: Round, prompts: Sequence[Sequence[int]], top: np.ndarray) -> None:
        """Predictions at prompt positions are not asked for."""

    def observe(self, outcome: Outcome) -> None:
        if self._config.learn:
            self.datastore(outcome.round).learn(outcome.round)


def parts(config: Config) -> Parts:
    retrieval = Retrieval(config)
    return Parts(propose=retrieval, verify=SampleThenMatch(), observe=(retrieval,), claims=config.nodes + 1)
