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

from dataclasses import dataclass

import numpy as np

from treewright.core.errors import require
from treewright.core.roles import Parts, Round
from treewright.ops.ngram import continuations
from treewright.parts.propose.growth import ask_level, best_children
from treewright.parts.propose.sketchpad import Sketchpad
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

    @property
    def asked(self) -> int:
        """The most columns that the draft model is asked about."""
        return 1 + self.beam * (self.depth - 1)


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
        pad = Sketchpad(round, "draft", config.asked)
        first = self._draft(pad)
        # Where the machine allows fewer claims than both trees have, each gives way in proportion.
        share = max(1, (round.claims - 1) * config.nodes // (config.nodes + config.retrieved))
        tries = []
        for row, sketch in enumerate(pad.rows):
            trie = sketch.best(sketch.values.__getitem__, 1 + min(config.nodes, share))
            found, counts = retrieved(round.text.of(row), config, int(round.deepest[row]))
            if first[row]:
                stays = pruned(found, first[row])
                counts = [count if stay else 0 for count, stay in zip(counts, stays, strict=True)]
            kept = found.best(lambda node, counts=counts: counts[node], 1 + sum(count > 0 for count in counts[1:]))  # type: ignore[misc]
            trie.merge(kept, min(round.claims, len(trie) + config.retrieved))
            tries.append(trie)
        place(round, tries)
        paths = [[trie.path(node) for node in range(len(trie))] for trie in tries]
        pad.adopt([[sketch.insert(path) for path in claimed] for sketch, claimed in zip(pad.rows, paths, strict=True)])

    def _draft(self, pad: Sketchpad) -> list[set[int]]:
        """Drafts every row's tree; gives the draft model's `keep` best first tokens."""
        config, beams = self._config, [[0] for _ in pad.rows]
        first: list[set[int]] = []
        for _ in range(min(config.depth, pad.round.depth_left)):
            ask_level(pad, beams)
            if not first:
                top = zip(*pad.top_children(beams, config.keep), strict=True)
                first = [set(ids[0, logs[0] > -np.inf].tolist()) for ids, logs in top]
            # A node that is not among the best `nodes` of its level is not among the best of all.
            offered = best_children(pad, beams, config.k, max(config.beam, config.nodes))
            beams = [best[: config.beam] for best in offered]
        return first


def parts(config: Config) -> Parts:
    return Parts(
        propose=Fusion(config), verify=SampleThenMatch(), claims=1 + config.nodes + config.retrieved, drafts=config.asked
    )  # fmt: skip
