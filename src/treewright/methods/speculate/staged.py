"""Staged speculative decoding: the draft model drafts a tree, and its own decoding is sped up by a still cheaper n-gram model.

Spector & Re 2023, "Accelerating LLM Inference with Staged Speculative Decoding" (https://arxiv.org/abs/2308.04623). The tree
grows where the cumulated draft probability is highest, until it has `nodes` claims or a further one is worth less than `least`
tokens. Whenever the draft model has to be asked, a trigram model with back-off writes `guesses` tokens on from the node that is
waited for, and these are asked in the same call. A draft that turns out as guessed has its answer already; the others cost a
few columns.

Cost: one target call a round, and as many draft calls as guesses go wrong, at most one for each level of a chain. With
`guesses` 0 it is the same tree in more calls. Lossless: guesses decide only when the draft model is asked, never what is drawn,
so claims are draws without replacement from the draft's own law and exact rejection takes them as such.

Beside the paper: which is vague about the tree; here nodes are drawn as in `dyspec`. Its n-gram model is fitted to text of the
draft model before; this one learns while decoding, from prompts, from the text, and from what the draft model held to be
most probable at every claim it was asked. It backs off to shorter contexts where a longer one was never seen, and has no
discounts (Katz), since only the most frequent token is asked for.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from treewright.core.errors import require
from treewright.core.roles import Parts, Round
from treewright.parts.propose.growth import BestFirst
from treewright.parts.propose.sketchpad import Sketchpad
from treewright.parts.verify.rejection import Rejection

CARD = {
    "title": "Accelerating LLM Inference with Staged Speculative Decoding",
    "year": 2023,
    "link": "https://arxiv.org/abs/2308.04623",
    "card": 30,
    "aliases": [],
    "roles": ["propose", "verify"],
    "models": ["draft"],
    "needs": ["left_to_right", "tree"],
    "claims": ["lossless"],
    "tables": {"nodes": 1},
}


MOST_CONTEXTS = 1 << 18
"""Contexts the n-gram model may know; it begins anew where there are more."""


@dataclass(frozen=True)
class Config:
    """
    nodes: the most claims a round, the frontier not counted
    least: expected tokens that a further claim must add
    guesses: tokens that the n-gram model writes ahead of the draft model in each of its calls
    order: the longest n-gram
    """

    nodes: int = 16
    least: float = 0.05
    guesses: int = 4
    order: int = 3

    def __post_init__(self) -> None:
        require(self.nodes >= 1, "nodes", self.nodes, "an integer >= 1")
        require(0 <= self.least < 1, "least", self.least, "a number from 0 to below 1")
        require(self.guesses >= 0, "guesses", self.guesses, "an integer >= 0")
        require(self.order >= 2, "order", self.order, "an integer >= 2")

    @property
    def asked(self) -> int:
        """Columns for a row's whole tree with guesses beside it, and as many again, since rows leave each other gaps."""
        return 1 + 2 * (self.nodes + self.guesses * self.nodes)


@dataclass(slots=True)
class BackOff:
    """How often which token followed which last tokens, for contexts of 1 to order - 1 tokens."""

    order: int
    counts: dict[tuple[int, ...], Counter[int]] = field(default_factory=lambda: defaultdict(Counter))

    def learn(self, before: Sequence[int], token: int) -> None:
        """That `token` followed the tokens `before`."""
        if len(self.counts) >= MOST_CONTEXTS:
            self.counts.clear()
        for length in range(1, min(self.order, len(before) + 1)):
            self.counts[tuple(before[-length:])][token] += 1

    def read(self, text: Sequence[int], begin: int = 1) -> None:
        """Learns a text's tokens from place `begin` on."""
        for place in range(max(begin, 1), len(text)):
            self.learn(text[max(0, place - self.order + 1) : place], text[place])

    def write(self, before: Sequence[int], count: int) -> list[int]:
        """The most frequent follower of the longest known context, `count` times over; fewer where nothing is known."""
        text = list(before)
        for _ in range(count):
            known = (self.counts.get(tuple(text[-length:])) for length in range(min(self.order - 1, len(text)), 0, -1))
            followers = next(filter(None, known), None)
            if followers is None:
                break
            text.append(followers.most_common(1)[0][0])
        return text[len(before) :]


class Staged:
    """Proposer. It reads each row's text itself, as far as it did not know it."""

    def __init__(self, config: Config) -> None:
        self._config = config

    def ngrams(self, round: Round) -> BackOff:
        order = self._config.order
        return round.memories.model(("staged", round.vocabulary, order), lambda: BackOff(order))

    def propose(self, round: Round) -> None:
        nodes = min(self._config.nodes, round.claims - 1)
        if nodes < 1 or round.depth_left < 1:
            return
        pad, ngrams = Sketchpad(round, "draft", self._config.asked), self.ngrams(round)
        if self._config.guesses:
            for row in range(round.rows):
                self._read_text(round, ngrams, row)
        BestFirst(pad, nodes, self._config.least, lambda row, node: self._guess(pad, ngrams, row, node)).grow()
        if self._config.guesses:
            learn_drafts(pad, ngrams)
        pad.place()

    def _read_text(self, round: Round, ngrams: BackOff, row: int) -> None:
        """Reads what a row's text has gained since it was read last."""
        text, known = round.text.of(row).tolist(), round.memories.row(round.keys[row], "staged", lambda: [1])
        before = max(0, known[0] - self._config.order)
        ngrams.read(text[before:], known[0] - before)
        known[0] = len(text)

    def _guess(self, pad: Sketchpad, ngrams: BackOff, row: int, node: int) -> None:
        """Has the model asked about what may follow the node, too."""
        sketch = pad.rows[row]
        before = [*pad.round.text.of(row)[-self._config.order :].tolist(), *sketch.path(node)]
        for token in ngrams.write(before, self._config.guesses):
            if not pad.may_grow(row, node) or pad.room(row) < 1:
                return
            node = sketch.add(node, token)
            if not pad.may_grow(row, node):
                return
            pad.ask(row, node)


def learn_drafts(pad: Sketchpad, ngrams: BackOff) -> None:
    """Learns what the draft model held to be most probable after every node it was asked about."""
    for row, sketch in enumerate(pad.rows):
        tail = pad.round.text.of(row)[-ngrams.order :].tolist()
        for node in range(len(sketch)):
            if pad.answered(row, node):
                ngrams.learn([*tail, *sketch.path(node)], int(pad.logits(row, node).argmax()))


def parts(config: Config) -> Parts:
    return Parts(
        propose=Staged(config), verify=Rejection(), probabilities=True, claims=config.nodes + 1, drafts=config.asked
    )  # fmt: skip
