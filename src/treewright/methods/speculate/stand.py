"""STAND: the laws that the target had after each n-gram are kept, and trees are drawn from them without replacement.

Song et al. 2025, "Accelerated Test-Time Scaling with Model-Free Speculative Sampling" (https://arxiv.org/abs/2506.04708).
A store keeps, for the last n - 1 tokens (n = `longest` to `shortest`), the running mean of the target's law there, cut to the
`top` most probable tokens. A static template says how many children each node of the tree has; a node's children are drawn
without replacement from the law of the longest n-gram that the text and the path above end in, and exact rejection verifies
them by that very law. The store is shared by all rows, so trajectories of one problem learn from each other, and kept from one
generation to the next.

Cost: one target call a round, no other model. Lossless: exact rejection of draws without replacement; with
`draws=likeliest`, and at temperature 0, children are the most probable tokens, and sample-then-match or the greedy walk
verifies.

Beside the paper: children are drawn one by one with keyed noise, which is the law of Gumbel-top-k without its cached noise, so
that no noise is used twice. Ranks are the order of the draws. What a row without penalties and constraints would have is kept
(after temperature, top-k and the like); at temperature 0, the model's own law. Without a `template`, the shape is that of
children whose chances of being accepted halve from rank to rank; `parts/propose/templates.py` counts accepted nodes in traces
of a large tree and makes a template of the best, as the paper does on 30 samples with 625 nodes of depth 20.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np

from treewright.core.claims import Law
from treewright.core.errors import require
from treewright.core.roles import Outcome, Parts, Round
from treewright.parts.propose.outputs import by_key
from treewright.parts.propose.sparse import draw_different, largest, largest_chances
from treewright.parts.propose.templates import Ranks, guessed_template, read_template
from treewright.parts.propose.trees import SparseLaw, Trie, place, sparse_laws
from treewright.parts.verify.rejection import Rejection
from treewright.parts.verify.sample_then_match import SampleThenMatch

CARD = {
    "title": "Accelerated Test-Time Scaling with Model-Free Speculative Sampling",
    "year": 2025,
    "link": "https://arxiv.org/abs/2506.04708",
    "card": 19,
    "aliases": ["stochastic adaptive n-gram drafting"],
    "roles": ["propose", "verify", "observe"],
    "models": [],
    "needs": ["left_to_right", "tree"],
    "claims": ["lossless"],
    "tables": {"nodes": 2},
}


@dataclass(frozen=True)
class Config:
    """
    nodes: the most claims a round
    width: the most children of a node, where no template is given
    depth: levels of the tree, where no template is given
    template: a JSON file of rank paths, the best first; empty for a guessed one
    longest: n of the longest n-gram, whose last token is the one predicted
    shortest: n of the shortest n-gram
    top: tokens kept of each law
    draws: draw children without replacement, or take the most probable ones
    entries: the most n-grams in the store; the one that was new the longest ago leaves
    """

    nodes: int = 80
    width: int = 8
    depth: int = 13
    template: str = ""
    longest: int = 4
    shortest: int = 2
    top: int = 10
    draws: Literal["sampled", "likeliest"] = "sampled"
    entries: int = 500_000

    def __post_init__(self) -> None:
        for name in ("nodes", "width", "depth", "top", "entries"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "an integer >= 1")
        require(self.shortest >= 2, "shortest", self.shortest, "an integer >= 2: one known token and the one that is predicted")
        require(self.longest >= self.shortest, "longest", self.longest, f"an integer >= shortest ({self.shortest})")
        require(self.draws in ("sampled", "likeliest"), "draws", self.draws, "'sampled' or 'likeliest'")


@cache
def branching(template: tuple[Ranks, ...], nodes: int) -> tuple[tuple[Ranks, int], ...]:
    """The first `nodes` nodes of a template as numbers of children of each node that has any, parents first."""
    counts: dict[Ranks, int] = {}
    for path in sorted(template[:nodes], key=lambda path: (len(path), path)):
        counts[path[:-1]] = counts.get(path[:-1], 0) + 1
    return tuple(counts.items())


class Store:
    """N-grams and the mean of the laws that followed them: up to `top` tokens with their chances, the likeliest first."""

    def __init__(self, longest: int, shortest: int, top: int, entries: int) -> None:
        self._sizes, self._top, self._entries = range(longest - 1, shortest - 2, -1), top, entries
        self._known: dict[tuple[int, ...], tuple[int, list[int], list[float]]] = {}

    def __len__(self) -> int:
        return len(self._known)

    @property
    def context(self) -> int:
        """Tokens that a law is looked up by, at most."""
        return self._sizes.start

    def learn(self, before: Sequence[int], tokens: Sequence[int], chances: Sequence[float]) -> None:
        """Takes in the law that followed the tokens `before`, for each size of n-gram: mean = (k mean + law) / (k + 1)."""
        for size in self._sizes:
            if size > len(before):
                continue
            key = tuple(before[len(before) - size :])
            times, old_tokens, old_chances = self._known.get(key, (0, [], []))
            mean = {token: chance * times / (times + 1) for token, chance in zip(old_tokens, old_chances, strict=True)}
            for token, chance in zip(tokens, chances, strict=True):
                mean[token] = mean.get(token, 0.0) + chance / (times + 1)
            best = sorted(mean.items(), key=lambda entry: (-entry[1], entry[0]))[: self._top]
            if times == 0 and len(self._known) >= self._entries:
                del self._known[next(iter(self._known))]
            self._known[key] = times + 1, [token for token, _ in best], [chance for _, chance in best]

    def law(self, text: Sequence[int]) -> SparseLaw | None:
        """What followed the longest n-gram that `text` ends in, None where none is known. What was cut off is missing."""
        for size in self._sizes:
            if size <= len(text):
                known = self._known.get(tuple(text[len(text) - size :]))
                if known is not None:
                    return known[1], known[2]
        return None


class Stand:
    """Proposer and observer around the store."""

    prompt_top = 0

    def __init__(self, config: Config) -> None:
        self._config = config
        guessed = guessed_template(config.nodes, config.width, config.depth)
        self._template = read_template(config.template) if config.template else guessed

    def store(self, round: Round) -> Store:
        """The store of the target's laws under these warpers, shared by all rows."""
        config = self._config
        size = config.longest, config.shortest, config.top, config.entries
        return round.memories.model(("stand", *size, round.request.sampling), lambda: Store(*size))

    def propose(self, round: Round) -> None:
        most = min(self._config.nodes, round.claims - 1)
        if most < 1:
            return
        drawn = self._config.draws == "sampled" and not round.request.sampling.greedy
        tries, laws = [], []
        for row in range(round.rows):
            trie, law = self._tree(round, row, most, drawn)
            tries.append(trie)
            laws.append(law)
        place(round, tries, Law.SWOR if drawn else Law.DELTA, sparse_laws(round.vocabulary, laws) if drawn else None)

    def _tree(self, round: Round, row: int, most: int, drawn: bool) -> tuple[Trie, dict[int, SparseLaw]]:
        """One row's tree, and the law that each node's children were drawn by."""
        store, trie, laws = self.store(round), Trie(), dict[int, SparseLaw]()
        end = round.text.of(row)[-store.context :].tolist()
        ends: dict[int, list[int]] = {0: end}
        node_of: dict[Ranks, int] = {(): 0}
        for number, (path, count) in enumerate(branching(self._template, most)):
            node = node_of.get(path)
            if node is None or len(path) >= round.deepest[row]:
                continue
            law = store.law(ends[node])
            if law is None:
                continue
            tokens, chances = law
            chosen = list(range(min(count, len(tokens))))
            if drawn:
                # Nodes of one depth draw for one position, so each has trials of its own.
                chosen = draw_different(round, row, len(path), chances, count, number * self._config.top)
                laws[node] = law
            for rank, index in enumerate(chosen):
                child = node_of[*path, rank] = trie.add(node, tokens[index])
                ends[child] = [*ends[node], tokens[index]][-store.context :]
        return trie, laws

    def read_prompts(self, round: Round, prompts: Sequence[Sequence[int]], top: np.ndarray) -> None:
        """Predictions at prompt positions are not asked for."""

    def observe(self, outcome: Outcome) -> None:
        round, store = outcome.round, self.store(outcome.round)
        answers, greedy = round.answers["target"], round.request.sampling.greedy
        for row in by_key(round):
            text = round.text.of(row)
            before = len(text) - len(outcome.emitted[row])
            columns = [0, *outcome.verdict.paths[row]][: len(outcome.emitted[row])]
            for step, column in enumerate(columns):
                logits, top = answers.row(row, column), self._config.top
                law = largest_chances(logits, top) if greedy else largest(round.draft_law(logits[None])[0], top)
                store.learn(text[max(0, before + step - store.context) : before + step].tolist(), *law)


def parts(config: Config) -> Parts:
    stand = Stand(config)
    drawn = config.draws == "sampled"
    verifier = Rejection() if drawn else SampleThenMatch()
    return Parts(propose=stand, verify=verifier, observe=(stand,), probabilities=drawn, claims=config.nodes + 1)
