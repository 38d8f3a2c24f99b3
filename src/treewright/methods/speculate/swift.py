"""SWIFT: the model drafts without some of its parts, and finds out while decoding which ones it does best without.

Xia et al. 2024, "SWIFT: On-the-Fly Self-Speculative Decoding for LLM Inference Acceleration"
(https://arxiv.org/abs/2410.06916). Drafting begins without every second layer. As soon as a row has more than `window` new
tokens, each round tries another set of attention and feed-forward parts to leave out (`skip` of those of the inner layers):
one forward of what stays, over the first new tokens and on the prompt's own memory, and the share of them it predicts is the
set's score. Sets are drawn at random, every 25th by a Gaussian process and its upper confidence bound. The best set drafts.
The search ends at a score above `enough`, after 300 sets without a gain, or 1000 in all.

A draft is a chain of up to `steps` tokens that ends after one whose probability lies below `threshold`; each step also claims
the next best siblings of its token, fewer the surer it was. The whole model checks the tree by recursive rejection.

Cost: a round is one target call, a forward of what stays for each step, and one over `window` tokens while the search lasts.
Lossless: how many siblings there are depends on the first of them, never on their own tokens.

Beside the paper: the released search copies the prompt's keys and values; here they are simply the first part of the memory
(`Session.sketch_text`). A Bayesian trial takes the best of 256 random sets, all of the one size. The set, its score and the
search last for the model, shared by the rows of a batch, over all of which a trial is scored that are long enough.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from treewright.core.answers import Answers
from treewright.core.claims import ABSENT, DraftLaws, Law
from treewright.core.errors import CapabilityError, require
from treewright.core.randomness import DRAFT
from treewright.core.roles import Parts, Round
from treewright.core.session import Capabilities
from treewright.ops.largest import tops
from treewright.ops.residual import without
from treewright.parts.control.layer_search import LayerSearch
from treewright.parts.propose.self_draft import own_probability
from treewright.parts.verify.rejection import Rejection

CARD = {
    "title": "SWIFT: On-the-Fly Self-Speculative Decoding for LLM Inference Acceleration",
    "year": 2024,
    "link": "https://arxiv.org/abs/2410.06916",
    "card": None,
    "aliases": ["on-the-fly self-speculation"],
    "roles": ["propose", "verify"],
    "models": [],
    "needs": ["left_to_right", "tree", "layers"],
    "claims": ["lossless"],
    "tables": {"steps": 1, "window": 2, "width": 1},
}
WIDEST, PATIENCE, TRIALS = 10, 300, 1000
SURE = ((0.95, 3, 1), (0.8, 5, 3), (0.5, 8, 5))
"""Above which probability of its first token a step claims how many children: at temperature 0, and above it."""


@dataclass(frozen=True)
class Config:
    """
    steps: length of the draft's chain at most
    threshold: probability below which a token ends the chain
    width: children of a step at most
    skip: share of the inner layers' parts that a trial leaves out
    window: new tokens that sets are tried on
    enough: score above which the search ends
    """

    steps: int = 25
    threshold: float = 0.8
    width: int = 10
    skip: float = 0.45
    window: int = 32
    enough: float = 0.95

    def __post_init__(self) -> None:
        require(self.steps >= 1, "steps", self.steps, "an integer >= 1")
        require(0 <= self.threshold <= 1, "threshold", self.threshold, "a number in [0, 1]")
        require(self.width >= 1, "width", self.width, "an integer >= 1")
        require(0 < self.skip < 1, "skip", self.skip, "a number between 0 and 1")
        require(self.window >= 1, "window", self.window, "an integer >= 1")
        require(0 <= self.enough <= 1, "enough", self.enough, "a number in [0, 1]")

    @property
    def claims(self) -> int:
        """Columns of the largest tree, frontier included: the last step may be widest, the others as wide as one that goes on."""
        others = min(self.width, width(self.threshold + 1e-9, greedy=True))
        return 1 + (self.steps - 1) * others + min(self.width, WIDEST)


def width(probability: float, greedy: bool) -> int:
    """Children of a step whose first token is this probable to the drafter."""
    return next((wide if greedy else narrow for above, wide, narrow in SURE if probability > above), WIDEST)


class Swift:
    """Proposer that also tries sets of layers."""

    asks = True

    def __init__(self, config: Config) -> None:
        self._config = config

    def fits(self, has: Capabilities) -> None:
        """Raises CapabilityError where there is nothing to leave out."""
        if has.layers < 3:
            raise CapabilityError(f"swift leaves out inner layers and the model has {has.layers} layers; give one with 3 or more")

    def search(self, round: Round) -> LayerSearch:
        """The search so far, kept for the model."""
        layers, skip = round.layers["target"], self._config.skip
        key = ("swift", layers, self._config)
        return round.memories.model(key, lambda: LayerSearch(layers, max(1, int(2 * (layers - 2) * skip))))

    def propose(self, round: Round) -> None:
        search = self.search(round)
        over = search.score > self._config.enough or search.idle >= PATIENCE or search.trials >= TRIALS
        if not over:
            self._try(round, search)
        self._draft(round, search)

    def _try(self, round: Round, search: LayerSearch) -> None:
        window, text = self._config.window, round.text
        rows = np.flatnonzero(text.length - text.prompt > window)
        if not len(rows):
            return
        plan = search.next()
        predicted = tops(round.sessions["target"].sketch_text(text.prompt, window, plan), 1)[..., 0]
        begin = text.prompt[rows, None] + 1
        written = text.token[rows[:, None], begin + np.arange(window)]
        search.tell(plan, float((predicted[rows] == written).mean()))

    def _draft(self, round: Round, search: LayerSearch) -> None:
        """The chain first, siblings behind it: the first drawn child of a claim still is the first of its columns."""
        session, going, parent = round.sessions["target"], np.ones(round.rows, bool), 0
        law = Law.DELTA if round.request.sampling.greedy else Law.SWOR
        siblings: list[tuple[int, np.ndarray]] = []
        for _ in range(min(self._config.steps, round.claims - 1, round.depth_left)):
            answers = session.sketch(round.forest, search.plan)
            drawn, sureness, q = self._children(round, answers, parent, going)
            column = round.forest.grow([parent], drawn[:, :1], law, q).start
            siblings.append((parent, drawn[:, 1:]))
            going = going & (drawn[:, 0] != ABSENT) & (sureness >= self._config.threshold)
            going &= round.more(answers, parent, column)
            if not going.any():
                break
            parent = column
        for above, tokens in siblings:
            present = tokens[:, (tokens != ABSENT).any(axis=0)][:, : round.claims - round.forest.columns]
            if present.shape[1]:
                round.forest.grow([above] * present.shape[1], present, law, {above: round.forest.q[above]} if q else None)

    def _children(
        self, round: Round, answers: Answers, parent: int, going: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, dict[int, DraftLaws] | None]:
        """Tokens [R, WIDEST] under `parent` in the order they are drawn in, ABSENT where a row has fewer; how probable the first
        is [R]; and the law they were drawn from, None at temperature 0."""
        rows, greedy = round.rows, round.request.sampling.greedy
        tokens, sureness = np.full((rows, WIDEST), ABSENT), np.zeros(rows)
        if greedy:
            best = tops(answers, WIDEST)[:, parent]
            for row in np.flatnonzero(going).tolist():
                sureness[row] = own_probability(answers, row, parent, int(best[row, 0]))
                count = min(self._config.width, width(sureness[row], greedy))
                tokens[row, :count] = best[row, :count]
            return tokens, sureness, None
        law = round.draft_law(np.stack([answers.row(row, parent) for row in range(rows)]))
        depth = int(round.forest.shape.depth[0, parent])
        for row in np.flatnonzero(going).tolist():
            left, place = law[row], round.position(row, depth)
            count = WIDEST
            for number in range(WIDEST):
                if number >= count or not left.any():
                    break
                token = round.randomness.index(left, round.keys[row], place, DRAFT, depth * WIDEST + number)
                tokens[row, number] = token
                if number == 0:
                    sureness[row] = law[row, token]
                    count = min(self._config.width, width(sureness[row], greedy))
                left = without(left, token)
        return tokens, sureness, {parent: law}


def parts(config: Config) -> Parts:
    swift = Swift(config)
    return Parts(
        propose=swift, verify=Rejection(), probabilities=True, claims=config.claims, reads=config.window, fits=(swift.fits,),
    )  # fmt: skip
