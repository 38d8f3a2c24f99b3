"""SpecMQuant's hierarchy: a tree for a middle model, which makes a chain of it, and the target checks only the chain.

Zhang et al. 2025, "Speculative Decoding Meets Quantization: Compatibility Evaluation and Hierarchical Framework Design"
(https://arxiv.org/abs/2505.22179). A target of 4-bit weights no longer waits for memory, so checking a tree of 60 claims
costs it far more than one token. So the smallest model (role `draft2`) drafts an EAGLE-2 tree, the middle model (role
`draft`) walks through it in one call, and what it accepts, with the token it adds, is appended to a chain; once the chain
has `chain` tokens the target checks it.

Cost: one target call a round, over the chain; one middle call for each inner round, at most `chain`, of which `levels` calls of
the smallest model each. The chain may grow beyond `chain` by what the last inner round accepts. Lossless whatever the two
draft models are; the smallest one changes only the number of calls of the middle one, which writes its own text.

Beside the paper: which is greedy. Here the middle model draws its chain from its own warped law, a draw that was claimed costs no
call, and the target verifies with ratios of that law. Whether a place is drawn depends on earlier tokens only, so that is
exact. Models keep no state between inner rounds but their columns: accepted drafts are kept at the end as they are, so
nothing is cropped or seeded again. The smallest model is any model; the paper has an EAGLE head.
"""

from __future__ import annotations

from dataclasses import dataclass

from treewright.core.errors import require
from treewright.core.roles import Parts, Round
from treewright.parts.propose.growth import ask_level, best_children
from treewright.parts.propose.sketchpad import Sketchpad
from treewright.parts.verify.rejection import Rejection

CARD = {
    "title": "Speculative Decoding Meets Quantization: Compatibility Evaluation and Hierarchical Framework Design",
    "year": 2025,
    "link": "https://arxiv.org/abs/2505.22179",
    "card": 49,
    "aliases": ["hierarchical speculative decoding", "HierSpec"],
    "roles": ["propose", "verify"],
    "models": ["draft", "draft2"],
    "needs": ["left_to_right", "tree"],
    "claims": ["lossless"],
    "tables": {"chain": 1, "levels": 1, "top_k": 2, "nodes": 2},
}


@dataclass(frozen=True)
class Config:
    """
    chain: tokens after which the target is asked
    levels: levels of the inner tree
    top_k: nodes of a level that are expanded, and children that each offers
    nodes: claims that the middle model checks in an inner round, the tree's root not counted (the released 30 counts it)
    """

    chain: int = 6
    levels: int = 3
    top_k: int = 10
    nodes: int = 29

    def __post_init__(self) -> None:
        for name in ("chain", "levels", "top_k", "nodes"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "an integer >= 1")

    @property
    def longest(self) -> int:
        """Tokens of the longest chain: the last inner round may accept a whole branch."""
        return self.chain + self.levels

    @property
    def asked(self) -> int:
        """Columns for all inner rounds, for either draft model."""
        tree = max(self.nodes, self.top_k * (self.levels - 1) + 1)
        return 1 + self.chain * (tree + 1)


class Chain:
    """Where the chain of each row stands: the middle model's node and the smallest model's, None once it is long enough."""

    def __init__(self, middle: Sketchpad, smallest: Sketchpad, most: int) -> None:
        self.middle, self.smallest, self._most = middle, smallest, most
        self.ends: list[tuple[int, int] | None] = [(0, 0) if middle.may_grow(row, 0) else None for row in range(len(middle.rows))]

    def lengthen(self, config: Config) -> None:
        """One inner round: a tree below each chain's end, one call of the middle model, and its walk."""
        self._offer(config)
        self.middle.score()
        for row, end in enumerate(self.ends):
            if end is not None:
                self.ends[row] = self._walk(row, *end, config.chain)

    def _offer(self, config: Config) -> None:
        """Drafts the smallest model's best nodes below each end, and asks the middle model about them."""
        small, below = self.smallest, [list[int]() for _ in self.ends]
        level = [[] if end is None else [end[1]] for end in self.ends]
        for sketch, roots in zip(small.rows, level, strict=True):
            for root in roots:
                sketch.values[root] = 0.0
        for _ in range(config.levels):
            if not any(level):
                break
            ask_level(small, level)
            best = best_children(small, level, config.top_k, max(config.top_k, config.nodes))
            level = [nodes[: config.top_k] for nodes in best]
            # Some are older than this round: the last one may have expanded what it did not offer, and the walk ended there.
            for offered, nodes in zip(below, best, strict=True):
                offered += nodes
        for row, end in enumerate(self.ends):
            if end is not None:
                self.middle.ask(row, end[0])
                place = {end[1]: end[0]}
                for node in small.rows[row].best_nodes(config.nodes, below[row]):
                    place[node] = self.middle.rows[row].add(place[small.rows[row].parents[node]], small.rows[row].tokens[node])
                    if self.middle.may_grow(row, place[node]):
                        self.middle.ask(row, place[node])

    def _walk(self, row: int, node: int, small: int, enough: int) -> tuple[int, int] | None:
        """Draws from the middle model while its answers reach; the new end, None where the chain is done."""
        sketch = self.middle.rows[row]
        while self.middle.answered(row, node):
            drawn = self.middle.draw(row, node)
            if drawn is None:
                return None
            node = drawn[0]
            small = self.smallest.rows[row].add(small, sketch.tokens[node])
            if not self.middle.may_grow(row, node) or sketch.depths[node] >= self._most:
                return None
        return None if sketch.depths[node] >= enough else (node, small)


class Hierarchy:
    def __init__(self, config: Config) -> None:
        self._config = config

    def propose(self, round: Round) -> None:
        most = min(self._config.longest, round.claims - 1)
        if most < 1 or round.depth_left < 1:
            return
        chain = Chain(Sketchpad(round, "draft", self._config.asked), Sketchpad(round, "draft2", self._config.asked), most)
        while any(chain.ends):
            chain.lengthen(self._config)
        chain.middle.place()
        drawn = [sketch.drawn for sketch in chain.middle.rows]
        paths = [[sketch.tokens[node] for node in nodes] for sketch, nodes in zip(chain.middle.rows, drawn, strict=True)]
        # Every token of a chain was made a node of the smallest model's pad too.
        small = chain.smallest.rows
        nodes = [[sketch.insert(path[:end]) for end in range(len(path) + 1)] for sketch, path in zip(small, paths, strict=True)]
        chain.smallest.adopt(nodes)


def parts(config: Config) -> Parts:
    return Parts(
        propose=Hierarchy(config), verify=Rejection(), probabilities=True, claims=config.longest + 1, drafts=config.asked
    )  # fmt: skip
