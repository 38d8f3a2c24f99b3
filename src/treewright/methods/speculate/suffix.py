"""Suffix decoding: what followed the last tokens before, in this text, earlier outputs or a corpus, counted in suffix tries.

Oliaro et al. 2024, "SuffixDecoding: Extreme Speculative Decoding for Emerging AI Applications"
(https://arxiv.org/abs/2411.04975). One trie holds the row's own prompt and output, another the outputs of all rows so far,
which is kept from one generation to the next; its oldest outputs leave first. For every m for which the last m tokens
occurred before, a draft of at most min(tokens, m factor + offset) tokens is read off the counts: the likeliest path, or the
tree of the likeliest continuations. A continuation's chance is the product of count(child) / count(node), and none below
`min_prob` is drafted. The sum of chances is the draft's score; the best draft of all m and all tries is taken, the longer
match on a tie, on a tie between tries the row's own before that of outputs before the corpus.

Cost: one target call a round, no other model. Lossless: what is drafted is a function of the past. `corpus` names a file of
token ids (see `treewright.parts.propose.corpus.write_corpus`); its trie is made once for all rows and runs and stays whole.

Beside the paper and the released code: bounds (no token is likelier than the first one's best chance, no level's chances sum
to more than the first's) leave out matches that cannot win, with the same result; the global trie takes in what a running row
emits at once, so samples of a prompt learn from each other, and is limited in tokens rather than in requests; a forked row
enters it from where its text differs on. A corpus stands for what a server would have written before. The mixture with
another drafter by score is not here: a recipe has one proposer.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from treewright.core.errors import require
from treewright.core.roles import Outcome, Parts, Round
from treewright.parts.propose.corpus import read_corpus, version_of
from treewright.parts.propose.outputs import Key, Outputs
from treewright.parts.propose.suffix_trie import Occurrences, SuffixTrie
from treewright.parts.propose.trees import Trie, place
from treewright.parts.verify.sample_then_match import SampleThenMatch

CARD = {
    "title": "SuffixDecoding: Extreme Speculative Decoding for Emerging AI Applications",
    "year": 2024,
    "link": "https://arxiv.org/abs/2411.04975",
    "card": None,
    "aliases": ["suffix decoding", "SuffixDecoding"],
    "roles": ["propose", "verify", "observe"],
    "models": [],
    "needs": ["left_to_right", "tree"],
    "claims": ["lossless"],
}

ROUNDING = 1e-9


@dataclass(frozen=True)
class Config:
    """
    corpus: a file of token ids (.npz, .jsonl, .txt) to match in as well; empty for none
    tokens: the most claims a round
    mode: draft the likeliest path, or a tree of the likeliest continuations
    depth: the longest run of tokens that is counted, match and draft together
    factor: draft tokens for each matched token
    offset: draft tokens beside those
    min_prob: chance below which nothing is drafted
    own: match in the row's own prompt and output
    shared: match in the outputs of all rows so far
    history: the most tokens of past outputs that are kept, the oldest leaving first
    """

    corpus: str = ""
    tokens: int = 32
    mode: Literal["tree", "path"] = "tree"
    depth: int = 64
    factor: float = 1.0
    offset: float = 0.0
    min_prob: float = 0.1
    own: bool = True
    shared: bool = True
    history: int = 200_000

    def __post_init__(self) -> None:
        require(self.tokens >= 1, "tokens", self.tokens, "an integer >= 1")
        require(self.mode in ("tree", "path"), "mode", self.mode, "'tree' or 'path'")
        require(self.depth >= 2, "depth", self.depth, "an integer >= 2 (a matched token and one that follows it)")
        require(0 <= self.factor < float("inf"), "factor", self.factor, "a number >= 0")
        require(0 <= self.offset < float("inf"), "offset", self.offset, "a number >= 0")
        require(self.factor + self.offset > 0, "factor", self.factor, "a number > 0 where offset is 0, else nothing is drafted")
        require(0 < self.min_prob <= 1, "min_prob", self.min_prob, "a number in (0, 1]")
        somewhere = self.own or self.shared or bool(self.corpus)
        require(somewhere, "own", self.own, "true, or give shared true or a corpus: else there is nothing to match in")
        require(self.history >= 0, "history", self.history, "an integer >= 0")


@dataclass(slots=True)
class Draft:
    """A trie of claims and the sum of their chances."""

    score: float = 0.0
    trie: Trie = field(default_factory=Trie)


def draft_path(counts: SuffixTrie, match: Occurrences, budget: int, least: float) -> Draft:
    """The likeliest continuation again and again, at most `budget` tokens, until the path's chance is below `least`."""
    draft, chance, node = Draft(), 1.0, 0
    while len(draft.trie) <= budget:
        below = counts.continuations(match)
        if not below:
            break
        token, longer = below[0]
        chance *= longer.times / match.times
        if chance < least:
            break
        node, match = draft.trie.add(node, token), longer
        draft.score += chance
    return draft


def draft_tree(counts: SuffixTrie, match: Occurrences, budget: int, least: float) -> Draft:
    """The `budget` likeliest continuations of chance `least` and more, parents before their children."""
    draft, made = Draft(), 0
    waiting: list[tuple[float, int, int, int, Occurrences]] = []

    def offer(above: int, chance: float, run: Occurrences) -> None:
        nonlocal made
        for token, longer in counts.continuations(run):
            likely = chance * longer.times / run.times
            if likely < least:
                return
            heapq.heappush(waiting, (-likely, made, above, token, longer))
            made += 1

    offer(0, 1.0, match)
    while waiting and len(draft.trie) <= budget:
        chance, _, above, token, run = heapq.heappop(waiting)
        draft.score -= chance
        node = draft.trie.add(above, token)
        if len(draft.trie) <= budget:
            offer(node, -chance, run)
    return draft


class OwnText:
    """The suffix trie of one row's text; a copy for a forked row is counted anew."""

    def __init__(self, depth: int, text: Sequence[int] = ()) -> None:
        self._depth, self.counts = depth, SuffixTrie(depth)
        self._text = self.counts.begin()
        self.counts.append(self._text, text)

    def follow(self, text: np.ndarray) -> None:
        """Takes in what the row's text [T] has gained."""
        self.counts.append(self._text, text[self.counts.tokens :].tolist())

    def __deepcopy__(self, memo: dict[int, Any]) -> OwnText:
        return OwnText(self._depth, self.counts.text(self._text))


class History:
    """The suffix trie of the outputs of all rows; beyond `most` tokens the oldest that has ended leaves."""

    def __init__(self, depth: int, most: int) -> None:
        self.counts, self._most = SuffixTrie(depth), most
        self._outputs = Outputs()
        self._running: dict[Key, int] = {}
        self._order: list[int] = []

    def begin(self, round: Round) -> None:
        """Hears of the rows that start in this round."""
        for key in self._outputs.begin(round):
            self._running.pop(key, None)

    def learn(self, round: Round) -> None:
        """Takes in what the rows emitted."""
        for gain in self._outputs.gained(round):
            if gain.fresh:
                self._running[gain.key] = self.counts.begin()
                self._order.append(self._running[gain.key])
            self.counts.append(self._running[gain.key], gain.tokens)
        alive = {self._running[key] for key in round.keys if key in self._running}
        while self.counts.tokens > self._most:
            oldest = next((number for number in self._order if number not in alive), None)
            if oldest is None:
                return
            self._order.remove(oldest)
            self._outputs.forget([key for key, number in self._running.items() if number == oldest])
            self._running = {key: number for key, number in self._running.items() if number != oldest}
            self.counts.remove(oldest)


def count_corpus(config: Config, vocabulary: int) -> SuffixTrie:
    """The suffix trie of the corpus, each document a text of its own. Raises InputError."""
    counts = SuffixTrie(config.depth)
    for document in read_corpus(config.corpus, vocabulary):
        counts.append(counts.begin(), document.tolist())
    return counts


class SuffixDecoding:
    """Proposer and observer around the tries."""

    prompt_top = 0

    def __init__(self, config: Config) -> None:
        self._config = config
        self._version = version_of(config.corpus) if config.corpus else 0

    def corpus(self, round: Round) -> SuffixTrie:
        """The trie of the corpus, which is read when it is first asked for and never changes."""
        config = self._config
        key = ("suffix", config.corpus, self._version, round.vocabulary, config.depth)
        return round.memories.loaded(key, lambda: count_corpus(config, round.vocabulary))

    def history(self, round: Round) -> History:
        """The outputs so far, shared by all rows."""
        config = self._config
        return round.memories.model(("suffix", config.depth, config.history), lambda: History(config.depth, config.history))

    def own(self, round: Round, row: int) -> OwnText:
        """The trie of a row's prompt and output, brought up to date."""
        own = round.memories.row(round.keys[row], "suffix", lambda: OwnText(self._config.depth))
        own.follow(round.text.of(row))
        return own

    def propose(self, round: Round) -> None:
        config = self._config
        if config.shared:
            self.history(round).begin(round)
        drafts = []
        for row in range(round.rows):
            most = min(config.tokens, round.claims - 1)
            tail = round.text.of(row)[-(config.depth - 1) :].tolist()
            best = Draft()
            if most >= 1 and round.deepest[row] >= 1:
                for counts in self._tries(round, row):
                    best = max(best, self.best_draft(counts, tail, most, best.score), key=lambda draft: draft.score)
            drafts.append(best.trie)
        place(round, drafts)

    def _tries(self, round: Round, row: int) -> Iterator[SuffixTrie]:
        """Where a row's last tokens are looked up: of equally good drafts the first one's is taken."""
        config = self._config
        if config.own:
            yield self.own(round, row).counts
        if config.shared:
            yield self.history(round).counts
        if config.corpus:
            yield self.corpus(round)

    def best_draft(self, counts: SuffixTrie, tail: Sequence[int], most: int, beat: float = 0.0) -> Draft:
        """The draft with the highest score of all m for which the last m of `tail` occur, if it is above `beat`; at most `most`
        tokens. Cost: one tree for each m whose bound is above the scores of the others."""
        config, matches = self._config, counts.matches(tail)
        build = draft_tree if config.mode == "tree" else draft_path
        best, longest = Draft(beat), 0
        budgets = [min(most, int(match.length * config.factor + config.offset)) for match in matches]
        levels = [min(budget, config.depth - match.length) for budget, match in zip(budgets, matches, strict=True)]
        for index in sorted(range(len(matches)), key=lambda index: (-levels[index], -index)):
            match, needed = matches[index], best.score - ROUNDING
            if levels[index] < needed:
                break
            # The chances of one level of a draft sum to no more than those of the first, and none is above the first one's best.
            following = [longer.times / match.times for _, longer in counts.continuations(match)]
            if min(budgets[index] * following[0], levels[index] * sum(following)) < needed:
                continue
            draft = build(counts, match, budgets[index], config.min_prob)
            if draft.score > best.score or (longest and draft.score == best.score and match.length > longest):
                best, longest = draft, match.length
        return best

    def read_prompts(self, round: Round, prompts: Sequence[Sequence[int]], top: np.ndarray) -> None:
        """Predictions at prompt positions are not asked for."""

    def observe(self, outcome: Outcome) -> None:
        if self._config.shared:
            self.history(outcome.round).learn(outcome.round)


def parts(config: Config) -> Parts:
    suffix = SuffixDecoding(config)
    return Parts(propose=suffix, verify=SampleThenMatch(), observe=(suffix,), claims=config.tokens + 1)
