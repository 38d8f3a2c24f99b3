"""LANTERN++: a draft is judged together with the tokens that are nearly the same, so that interchangeable ones pass.

Park et al. 2025, "LANTERN++" (https://arxiv.org/abs/2502.06352), after Jang et al. 2024, "LANTERN" (https://arxiv.org/abs/2410.03355).
Image tokens have small probabilities and near doubles, so exact verification refuses most drafts. At a claim with law P, a
draft x borrows the probability of its nearest tokens, in order, as long as what is borrowed stays within `bound`: times P(x)
("relative", LANTERN++) or in all ("absolute", LANTERN). It is accepted with probability min(1, P'(x) / q(x)), q being 1 where the
draft was deterministic. If it is refused, x and the tokens it had borrowed from leave P, q is taken off where it was drawn from
one, and the next sibling is tried. LANTERN++ drafts static trees; the drafter here is whoever this is joined to, so
`medusa+lantern_pp`.

Cost: nothing beside the drafter's own; it takes the place of the drafter's verifier. Neighbours come from a file: of ids [V,
k], or of vectors [V, D] whose Euclidean (L2) nearest are found once (`treewright.parts.verify.neighbours.nearest`). For a text
model the embedding matrix will do: table=FOLDER/model.safetensors, key=model.embed_tokens.weight.

Not lossless. With bound 0 it is exact rejection, token for token with the same seed. Temperature 0: x passes if it has the
largest probability once it has borrowed, the first such sibling in the drafter's order; with bound 0, greedy decoding. The text
depends on the drafts, so rows are decoded one after another and nothing is kept between them or between runs, but for drafters
whose drafts are known to be a row's own (`Parts.row_drafts`).

Beside the papers: k is 1000 for image tokens, absurd for text. On a refusal only the tokens that were borrowed from leave P.
`refuse` = all is the released code's rule, where a refused draft had borrowed at all. Of a deterministic one, all k neighbours
leave P. Of a drawn one, all k leave the q that is taken off, so they keep all of P that they had: P becomes norm([P - q']+), q'
being q without earlier siblings and without them. Only this one difference goes without them; the next sibling's q is the law
that it was drawn by. (The released code takes out k + 1.) A token that has nothing left of P (a constraint, top-k, an earlier
refusal) never passes and borrows nothing. Where nothing would be left the law before the refusal less x is kept, where the
released code draws from all tokens alike, forbidden ones too. The released code writes 1 + lambda for the relative bound; here
it is lambda itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from treewright.core.claims import ABSENT, Law
from treewright.core.errors import require
from treewright.core.roles import Parts, Round, TargetLaw
from treewright.core.session import Capabilities
from treewright.ops.residual import after_rejection, without
from treewright.ops.softmax import softmax
from treewright.parts.verify.neighbours import Neighbours
from treewright.parts.verify.rejection import Rejection

CARD = {
    "title": "LANTERN++: Enhancing Relaxed Speculative Decoding with Static Tree Drafting for Visual Auto-regressive Models",
    "year": 2025,
    "link": "https://arxiv.org/abs/2502.06352",
    "card": 131,
    "aliases": ["LANTERN", "relaxed speculative decoding"],
    "roles": ["accept"],
    "models": [],
    "needs": ["left_to_right", "tree"],
    "claims": ["row_independent", "lossless_at_limit"],
    "limit": {"bound": 0.0},
    "tables": {"table": "random"},
}


@dataclass(frozen=True)
class Config:
    """
    table: file of neighbours [V, k] or vectors [V, D] (.npy, .npz, .safetensors), or "random" for vectors that mean nothing
    key: name of the array in the file; "" for neighbours, vectors, or the only one there is
    k: neighbours that may be borrowed from
    bound: most that is borrowed (lambda); 0 for exact verification
    kind: "relative" bounds by a multiple of the draft's own probability, "absolute" by a probability
    refuse: what a refused draft takes out, the tokens it had "borrowed" from or "all" k neighbours (of a drawn one: out of its q)
    """

    table: str = ""
    key: str = ""
    k: int = 16
    bound: float = 2.0
    kind: Literal["relative", "absolute"] = "relative"
    refuse: Literal["borrowed", "all"] = "borrowed"

    def __post_init__(self) -> None:
        require(self.k >= 1, "k", self.k, "an integer >= 1")
        require(self.bound >= 0, "bound", self.bound, "a number >= 0")


class Relaxed(Rejection):
    """Exact rejection in which a draft may borrow from its neighbours."""

    def __init__(self, config: Config) -> None:
        self._config, self._source = config, Neighbours(config.table, config.key, config.k)

    def fits(self, capabilities: Capabilities) -> None:
        """Raises CapabilityError where there is no table or it is for another vocabulary."""
        self._source.load(capabilities.vocabulary)

    def borrowed(self, law: np.ndarray, token: int) -> tuple[float, np.ndarray]:
        """What `token` borrows under the law [V], and whom from, nearest first."""
        near = self._source.load(len(law))[token]
        sums = np.cumsum(law[near])
        most = self._config.bound * (float(law[token]) if self._config.kind == "relative" else 1.0)
        count = int((sums <= most).sum()) if most > 0 else 0
        return (float(sums[count - 1]), near[:count]) if count else (0.0, near[:0])

    def greedy_walk(self, round: Round, law: TargetLaw, row: int) -> tuple[list[int], int]:
        children, path, column = round.forest.shape.children(row), list[int](), 0
        while True:
            logits = law.logits(row, column).astype(np.float64)
            chosen = law.draw(row, column)[0]
            if chosen < 0:
                return path, -1
            found = (child for child in children[column] if self._is_largest(softmax(logits), round, row, child))
            match = next(found, None)
            if match is None:
                return path, chosen
            path.append(match)
            column = match

    def _is_largest(self, law: np.ndarray, round: Round, row: int, child: int) -> bool:
        token = int(round.forest.token[row, child])
        if token == ABSENT or law[token] == 0:
            return False
        gained = law.copy()
        gained[token] += self.borrowed(law, token)[0]
        return int(gained.argmax()) == token

    def chance(self, target: np.ndarray, draft: np.ndarray | None, token: int) -> float:
        asked = 1.0 if draft is None else float(draft[token])
        if target[token] <= 0 or asked <= 0:
            return 0.0
        return min(1.0, (float(target[token]) + self.borrowed(target, token)[0]) / asked)

    def refuse(self, target: np.ndarray, draft: np.ndarray | None, token: int, law: Law) -> tuple[np.ndarray, np.ndarray | None]:
        left, next_draft = after_rejection(target, draft, token, law)
        lenders = self.borrowed(target, token)[1]
        return self._left(target, draft, token, lenders) if len(lenders) else left, next_draft

    def _left(self, target: np.ndarray, draft: np.ndarray | None, token: int, lenders: np.ndarray) -> np.ndarray:
        """The law after `token` was refused, which had borrowed from `lenders`, at least one."""
        everyone = self._config.refuse == "all"
        near = self._source.load(len(target))[token] if everyone else lenders
        if draft is None:
            left = target.copy()
            left[near] = 0.0
        elif everyone:
            taken = draft.copy()
            taken[near] = 0.0
            left = np.maximum(target - taken, 0.0)
        else:
            left = np.maximum(target - draft, 0.0)
            left[near] = 0.0
        left[token] = 0.0
        if left.any():
            return left / left.sum()
        rest = without(target, token)
        return rest if rest.any() else target


def parts(config: Config) -> Parts:
    relaxed = Relaxed(config)
    return Parts(accept=relaxed, probabilities=True, whole_laws=True, fits=(relaxed.fits,))
