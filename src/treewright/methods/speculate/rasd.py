"""RASD: what the text said before is merged into the draft model's tree, where the draft model finds it likely.

Quan et al. 2025, "RASD: Retrieval-Augmented Speculative Decoding" (https://arxiv.org/abs/2503.03434). Two trees are made for one
check. The draft model's grows by its most probable beginnings and keeps the best `nodes`. The retrieved one holds
what followed every earlier occurrence of the last few tokens, counted; only branches stay whose first token is among the draft
model's `keep` best, which it has said already, and of them the most frequent nodes. Both are fused as prefix trees: what
they share stands there once, and a retrieved branch may reach deeper than any draft.

Cost: one target call and at most `depth` draft calls a round. Lossless: the tree is a function of the text, so the walk is
sample-then-match.

Beside the paper: it names a corpus as a second place to retrieve from; here it is the row's own prompt and output. Whether a
branch is pruned by its first token alone, and the caps, are read from accounts of the paper and not from its text. A draft model
with another tokenizer ranks the tokens that both have; where it has no answer at all, nothing is pruned.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from treewright.core.answers import Answers
from treewright.core.claims import ABSENT, Forest
from treewright.core.errors import require
from treewright.core.roles import Parts, Round
from treewright.ops.ngram import continuations
from treewright.parts.propose.trees import Trie, place
from treewright.parts.verify.sample_then_match import SampleThenMatch

CARD = {
    "title": "RASD: Retrieval-Augmented Speculative Decoding",
    "year": 2025,
    "link": "https://arxiv.org/abs/2503.03434",
    "card": 95,
    "aliases": ["retrieval-augmented speculative decoding"],
    "roles": ["propose", "verify"],
    "models": ["draft"],
    "translated": {"draft": "shared"},
    "needs": ["left_to_right", "tree"],
    "claims": ["lossless"],
    "tables": {"nodes": 3, "retrieved": 2, "depth": 2, "beam": 2},
}


@dataclass(frozen=True)
class Config:
    """
    nodes: claims of the draft model's tree
    retrieved: further claims that retrieval may add
    depth: levels of the draft model's tree, a call of it for each
    beam: claims of a level that are drafted on
    k: children that the draft model offers under each claim
    keep: a retrieved branch must begin with one of so many of the draft model's best tokens
    max_ngram: the longest run of last tokens that is searched
    length: tokens that are taken behind each occurrence
    """

    nodes: int = 24
    retrieved: int = 16
    depth: int = 4
    beam: int = 4
    k: int = 4
    keep: int = 10
    max_ngram: int = 4
    length: int = 10

    def __post_init__(self) -> None:
        for name in ("nodes", "retrieved", "depth", "beam", "k", "keep", "max_ngram", "length"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "an integer >= 1")


@dataclass(slots=True)
class Drafted:
    """A row's drafts: the tree, the log-probability of each node's path, and the column that the draft model answered it at, -1
    where it was not asked."""

    trie: Trie = field(default_factory=Trie)
    value: list[float] = field(default_factory=lambda: [0.0])
    column: list[int] = field(default_factory=lambda: [0])

    def offer(self, parent: int, tokens: np.ndarray, values: np.ndarray) -> list[int]:
        """New children of `parent`; their nodes."""
        nodes = []
        for token, value in zip(tokens.tolist(), values.tolist(), strict=True):
            if token != ABSENT:
                nodes.append(self.trie.add(parent, token))
                self.value.append(self.value[parent] + value)
                self.column.append(ABSENT)
        return nodes


def retrieved(text: np.ndarray, config: Config, width: int) -> tuple[Trie, list[int]]:
    """What followed the last tokens of `text` [T] before, as a tree of paths of `width` tokens at most, and how often each node
    was met."""
    trie, counts = Trie(), [0]
    for path in continuations(text, config.max_ngram, min(width, config.length)):
        node = 0
        for token in path.tolist():
            node = trie.add(node, token)
            counts += [0] * (len(trie) - len(counts))
            counts[node] += 1
    return trie, counts


def pruned(trie: Trie, first: set[int]) -> list[bool]:
    """Which nodes of a tree lie on branches that begin with one of these tokens; node 0 does."""
    stays = [True]
    for node in range(1, len(trie)):
        above = trie.parents[node]
        stays.append(stays[above] and (above > 0 or trie.tokens[node] in first))
    return stays


class Fusion:
    """Proposer: the draft model's tree and the retrieved one, merged."""

    def __init__(self, config: Config) -> None:
        self._config = config

    def propose(self, round: Round) -> None:
        config = self._config
        if round.claims < 2 or round.depth_left < 1:
            return
        rows, first = self._draft(round)
        # Where the machine allows fewer claims than both trees have, each gives way in proportion.
        share = max(1, (round.claims - 1) * config.nodes // (config.nodes + config.retrieved))
        tries = []
        for row, drafted in enumerate(rows):
            trie = drafted.trie.best(drafted.value.__getitem__, 1 + min(config.nodes, share))
            found, counts = retrieved(round.text.of(row), config, int(round.deepest[row]))
            if first[row]:
                stays = pruned(found, first[row])
                counts = [count if stay else 0 for count, stay in zip(counts, stays, strict=True)]
            kept = found.best(lambda node, counts=counts: counts[node], 1 + sum(count > 0 for count in counts[1:]))  # type: ignore[misc]
            trie.merge(kept, min(round.claims, len(trie) + config.retrieved))
            tries.append(trie)
        place(round, tries)
        round.sessions["draft"].adopt(self._asked(round, rows, tries))

    def _draft(self, round: Round) -> tuple[list[Drafted], list[set[int]]]:
        """Each row's drafts, and the draft model's `keep` best first tokens."""
        config, own = self._config, Forest(round.text.frontier())
        rows = [Drafted() for _ in range(round.rows)]
        beams: list[list[int]] = [[0] for _ in rows]
        first: list[set[int]] = []
        for level in range(min(config.depth, round.depth_left)):
            answers = round.sessions["draft"].score(own)
            if not first:
                first = [set(top[top != ABSENT].tolist()) for top in answers.top(config.keep)[:, 0]]
            offered = [self._offer(answers, row, drafted, beams[row]) for row, drafted in enumerate(rows)]
            beams = [
                sorted(nodes, key=drafted.value.__getitem__, reverse=True)[: config.beam]
                for nodes, drafted in zip(offered, rows, strict=True)
            ]  # fmt: skip
            if level + 1 < min(config.depth, round.depth_left):
                self._claim(own, rows, beams)
        return rows, first

    def _offer(self, answers: Answers, row: int, drafted: Drafted, beam: list[int]) -> list[int]:
        new: list[int] = []
        for node in beam:
            column = drafted.column[node]
            tokens = answers.top(self._config.k)[row, column]
            logits = answers.row(row, column).astype(np.float64)
            if tokens[0] != ABSENT:
                largest = logits.max()
                new += drafted.offer(node, tokens, logits[tokens] - largest - np.log(np.exp(logits - largest).sum()))
        return new

    @staticmethod
    def _claim(own: Forest, rows: list[Drafted], beams: list[list[int]]) -> None:
        """Asks the draft model about the best nodes of a level next."""
        width = max(1, *map(len, beams))
        parents, token = np.full((len(rows), width), ABSENT), np.full((len(rows), width), ABSENT)
        for row, (drafted, beam) in enumerate(zip(rows, beams, strict=True)):
            for place_in, node in enumerate(beam):
                parents[row, place_in] = drafted.column[drafted.trie.parents[node]]
                token[row, place_in] = drafted.trie.tokens[node]
                drafted.column[node] = own.columns + place_in
        own.grow(parents, token)

    @staticmethod
    def _asked(round: Round, rows: list[Drafted], tries: list[Trie]) -> np.ndarray:
        """For each claim of the round the column that the draft model answered it at, [R, N]."""
        columns = np.full((round.rows, round.forest.columns), ABSENT)
        for row, (drafted, trie) in enumerate(zip(rows, tries, strict=True)):
            nodes = [0]
            columns[row, 0] = 0
            for node in range(1, len(trie)):
                above = nodes[trie.parents[node]]
                nodes.append(drafted.trie.children[above].get(trie.tokens[node], ABSENT) if above >= 0 else ABSENT)
                columns[row, node] = drafted.column[nodes[-1]] if nodes[-1] >= 0 else ABSENT
        return columns


def parts(config: Config) -> Parts:
    return Parts(
        propose=Fusion(config), verify=SampleThenMatch(),
        claims=1 + config.nodes + config.retrieved, drafts=1 + config.beam * (config.depth - 1),
    )  # fmt: skip
