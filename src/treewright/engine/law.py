"""The target law of one round, computed only where a walk looks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from treewright.core.answers import Answers
from treewright.core.randomness import DRAW
from treewright.core.roles import Parts, Round
from treewright.ops.warp import penalised, probabilities


class PulledLaw:
    """`TargetLaw` over the answers of a round: logits, constraint, steering, penalties, warpers, each at the claim's own
    prefix. What one visit computed is kept for the round.

    start: the tokens that penalties count in place of the prompt, where the target reads the prompt apart from its text."""

    def __init__(
        self, round: Round, parts: Parts, target: Answers, others: Mapping[str, Answers], start: Sequence[int] | None = None
    ) -> None:
        self._round, self._parts, self._target, self._others, self._start = round, parts, target, others, start
        request = round.request
        self.greedy = request.sampling.greedy
        self._sampling = request.sampling
        self._early_end = list(request.ends) if request.min_new_tokens else []
        touched = parts.steer or parts.constrain or self._early_end or request.sampling.history
        self._plain = not (touched or request.sampling.logit_bias)
        self._logits: dict[tuple[int, int], np.ndarray] = {}
        self._probs: dict[tuple[int, int], np.ndarray] = {}

    def prefix(self, row: int, column: int) -> np.ndarray:
        """The row's text and the claimed tokens down to `column`."""
        path = self._round.forest.path_tokens(row, column)
        return np.concatenate([self._round.text.of(row), np.array(path, np.int64)])

    def logits(self, row: int, column: int) -> np.ndarray:
        if self._plain:
            return self._target.row(row, column)
        if (row, column) not in self._logits:
            self._logits[row, column] = self._changed(row, column)
        return self._logits[row, column]

    def _changed(self, row: int, column: int) -> np.ndarray:
        prefix = self.prefix(row, column)
        prompt = int(self._round.text.prompt[row])
        key, target = self._round.keys[row], self._target.row(row, column)
        allowed = np.ones(len(target), bool)
        for constraint in self._parts.constrain:
            allowed &= constraint.mask(key, prefix[prompt:])
        if len(prefix) - prompt < self._round.request.min_new_tokens:
            allowed[self._early_end] = False
        # Before steering, so that what steering cuts away (a nucleus, say) is cut among allowed tokens; and after it.
        logits = np.where(allowed, target, -np.inf)
        if not allowed.any():
            return logits
        for part in self._parts.steer:
            others = {name: self._others[name].row(row, column) for name in part.models}
            logits = part.steer(logits, others, prefix, key)
        if self._start is not None:
            prefix, prompt = np.concatenate([np.array(self._start, np.int64), prefix[prompt:]]), len(self._start)
        return np.where(allowed, penalised(logits, prefix, prompt, self._sampling), -np.inf)

    def probs(self, row: int, column: int) -> np.ndarray:
        if (row, column) not in self._probs:
            self._probs[row, column] = probabilities(self.logits(row, column), self._sampling)
        return self._probs[row, column]

    def draw(self, row: int, column: int) -> tuple[int, float]:
        if self.greedy:
            if self._plain:
                return self._target.largest(row, column), 0.0
            logits = self.logits(row, column)
            token = int(logits.argmax())
            return (token, 0.0) if logits[token] > -np.inf else (-1, -np.inf)
        law = self.probs(row, column)
        if not law.any():
            return -1, -np.inf
        round = self._round
        depth = int(round.forest.shape.depth[0 if round.forest.shape.shared else row, column])
        return round.randomness.index(law, round.keys[row], round.position(row, depth), DRAW), 0.0


def logprobs(target: Answers, row: int, columns: Sequence[int], tokens: Sequence[int]) -> list[float]:
    """The model's own log-probability (natural logarithm, temperature 1) of each token at its column."""
    found = []
    for column, token in zip(columns, tokens, strict=False):
        logits = target.row(row, column).astype(np.float64)
        largest = logits.max()
        found.append(float(logits[token] - largest - np.log(np.exp(logits - largest).sum())))
    return found
