"""The target law of one round, computed only where a walk looks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from treewright.core.answers import Answers
from treewright.core.errors import CompositionError, InputError
from treewright.core.exits import Others
from treewright.core.randomness import DRAW
from treewright.core.request import Request
from treewright.core.roles import Parts, Round, Steering
from treewright.ops.softmax import log_softmax
from treewright.ops.warp import penalised, probabilities

WHOLE_LAWS = (
    "constraints are asked about one token at a time here, and this method needs the probabilities of all tokens that they "
    "allow; leave out the sampler (awrs), or join it with a method that only matches draws, such as token_recycling"
)


def check_draws(parts: Parts, request: Request) -> None:
    """Raises InputError for a temperature that the parts do not work at, CompositionError for a verifier that cannot live with
    the way tokens are drawn."""
    if parts.greedy is not None and parts.greedy != request.sampling.greedy:
        wanted = "is deterministic; leave temperature at 0" if parts.greedy else "draws; give a temperature > 0, such as 1"
        raise InputError(f"temperature is {request.sampling.temperature:g} and this method {wanted}")
    if parts.one_law and (parts.steer or parts.constrain or parts.form or request.sampling.history):
        raise CompositionError(
            "the texts of this method share one answer of the model, or placeholders hide their last tokens from it, so nothing "
            "can be asked of each of them; leave out steering, constraints and penalties"
        )
    if parts.accept is not None and not parts.bonus:
        raise CompositionError(
            "a rule of acceptance judges drafts, and the claims of this method are no drafts but its definition; join the rule "
            "with a drafter, such as token_recycling"
        )
    if parts.layers and parts.writers:
        raise CompositionError(
            "this method reads the target's exit layers, and joined with one that lets another model write there are none; "
            "leave one of them out"
        )
    if parts.draw is None or not parts.constrain:
        return
    if parts.whole_laws or (parts.probabilities and not request.sampling.greedy):
        raise CompositionError(WHOLE_LAWS)
    if parts.weighted and not parts.draw.weighs:
        raise CompositionError(
            "this method needs the weights of its draws, and the sampler was told to leave them out; set its option looks to at "
            "least 1"
        )


class PulledLaw:
    """`TargetLaw` over the answers of a round: logits, constraint, steering, penalties, warpers, each at the claim's own
    prefix. What one visit computed is kept for the round; claims that are scored later in it are read just the same. checks
    [R]: tokens that constraints were asked about, one by one. start: the tokens that penalties count in place of the prompt,
    where the target reads the prompt apart from its text.

    Where a `Sampler` draws or draws are weighted the constraint comes last, after the warpers: the law is that of the
    free text with what is forbidden left out, and the weight the mass that is left.
    """

    def __init__(self, round: Round, parts: Parts, start: Sequence[int] | None = None) -> None:
        self._round, self._parts, self._answers, self._start = round, parts, round.answers, start
        request = round.request
        self.greedy = request.sampling.greedy
        self._sampling = request.sampling
        self._early_end = list(request.ends) if request.min_new_tokens else []
        touched = parts.steer or parts.constrain or parts.form or self._early_end or request.sampling.history
        self._plain = not (touched or request.sampling.logit_bias)
        self._checked = bool(parts.constrain) and parts.draw is not None
        self._weighted = bool(parts.constrain) and parts.weighted and not self.greedy
        self.checks = [0] * round.rows
        self._logits: dict[tuple[int, int], np.ndarray] = {}
        self._probs: dict[tuple[int, int], np.ndarray] = {}

    def prefix(self, row: int, column: int) -> np.ndarray:
        """The row's text and the claimed tokens down to `column`."""
        path = self._round.forest.path_tokens(row, column)
        return np.concatenate([self._round.text.of(row), np.array(path, np.int64)])

    def logits(self, row: int, column: int) -> np.ndarray:
        if self._plain:
            return self._answers["target"].numbers(row, column)
        if self._checked:
            raise CompositionError(WHOLE_LAWS)
        if (row, column) not in self._logits:
            self._logits[row, column] = self._changed(row, column, self._mask(row, column))
        return self._logits[row, column]

    def _mask(self, row: int, column: int) -> np.ndarray:
        """What all constraints allow, [V] bool."""
        allowed = np.ones(self._round.vocabulary, bool)
        continuation = self._continuation(row, column)
        for constraint in self._parts.constrain:
            allowed &= constraint.mask(self._round.keys[row], continuation)
        return allowed

    def _continuation(self, row: int, column: int) -> np.ndarray:
        return self.prefix(row, column)[int(self._round.text.prompt[row]) :]

    def _free(self, row: int, column: int) -> np.ndarray:
        """The logits that the row would have without constraints, [V]."""
        return self._changed(row, column, np.ones(self._round.vocabulary, bool))

    def _changed(self, row: int, column: int, allowed: np.ndarray) -> np.ndarray:
        prefix = self.prefix(row, column)
        prompt = int(self._round.text.prompt[row])
        key, target = self._round.keys[row], self._answers["target"].numbers(row, column)
        if len(prefix) - prompt < self._round.request.min_new_tokens:
            allowed[self._early_end] = False
        for rule in self._parts.form:
            allowed = allowed & rule.mask(key, prefix[prompt:])
        # Before steering, so that what steering cuts away (a nucleus, say) is cut among allowed tokens; and after it.
        logits = np.where(allowed, target, -np.inf)
        if not allowed.any():
            return logits
        for part in self._parts.steer:
            logits = part.steer(logits, self._others_of(part, row, column), prefix, key)
        if self._start is not None:
            prefix, prompt = np.concatenate([np.array(self._start, np.int64), prefix[prompt:]]), len(self._start)
        return np.where(allowed, penalised(logits, prefix, prompt, self._sampling), -np.inf)

    def _others_of(self, part: Steering, row: int, column: int) -> Others:
        named = {name: self._answers[name].row(row, column) for name in part.models}
        target = self._answers["target"]
        exits = target.exits
        if exits is None:
            return Others(named)
        return Others(named, exits.layers, lambda layers, norm: target.at_layers(row, column, layers, norm), exits.head.tied)

    def probs(self, row: int, column: int) -> np.ndarray:
        if (row, column) not in self._probs:
            self._probs[row, column] = probabilities(self.logits(row, column), self._sampling)
        return self._probs[row, column]

    def draw(self, row: int, column: int) -> tuple[int, float]:
        if self._checked:
            return self._draw_checked(row, column)
        if self._weighted:
            return self._draw_weighted(row, column)
        if self.greedy:
            if self._plain:
                return self._answers["target"].largest(row, column), 0.0
            logits = self.logits(row, column)
            token = int(logits.argmax())
            return (token, 0.0) if logits[token] > -np.inf else (-1, -np.inf)
        law = self.probs(row, column)
        if not law.any():
            return -1, -np.inf
        return self._index(row, column, law), 0.0

    def _index(self, row: int, column: int, weights: np.ndarray, trial: int = 0) -> int:
        """A place drawn in proportion to its weight, with the noise of the claim's position."""
        round = self._round
        depth = int(round.forest.shape.depth[0 if round.forest.shape.shared else row, column])
        return round.randomness.index(weights, round.keys[row], round.position(row, depth), DRAW, trial)

    def _draw_checked(self, row: int, column: int) -> tuple[int, float]:
        key, continuation = self._round.keys[row], self._continuation(row, column)
        sampler, logits = self._parts.draw, self._free(row, column)

        def allowed(token: int) -> bool:
            self.checks[row] += 1
            return all(constraint.allowed(key, continuation, token) for constraint in self._parts.constrain)

        def index(weights: np.ndarray, trial: int) -> int:
            return self._index(row, column, weights, trial)

        assert sampler is not None
        if self.greedy:
            token = sampler.largest(logits, allowed)
            return token, 0.0 if token >= 0 else -np.inf
        return sampler.draw(probabilities(logits, self._sampling), allowed, index)

    def _draw_weighted(self, row: int, column: int) -> tuple[int, float]:
        law = np.where(self._mask(row, column), probabilities(self._free(row, column), self._sampling), 0.0)
        mass = float(law.sum())
        return (self._index(row, column, law), float(np.log(mass))) if mass > 0 else (-1, -np.inf)


def logprobs(target: Answers, row: int, columns: Sequence[int], tokens: Sequence[int]) -> list[float]:
    """The model's own log-probability (natural logarithm, temperature 1) of each token at its column."""
    found = []
    for column, token in zip(columns, tokens, strict=False):
        found.append(float(log_softmax(target.row(row, column))[token]))
    return found
