"""What searches share: the law they search under, children in order, the score of a hypothesis, and the choice among them.

At temperature 0 a search reads the law as the softmax of its logits (steered, constrained, penalised): the point mass of
greedy decoding would leave nothing to search. Above it the law is the request's own, so top-k, top-p and the others cut
what may be found and the temperature reshapes it; temperature 1 without warpers is temperature 0.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from treewright.core.roles import Round, TargetLaw
from treewright.core.selection import Candidate, Scorer
from treewright.parts.select.ranking import AllEnd

FINISHED, CUT, DEAD = range(3)
RANK = {"stop": FINISHED, "length": FINISHED, "budget": CUT, "cancelled": CUT, "dead_end": DEAD}


def log_law(law: TargetLaw, row: int, column: int = 0) -> np.ndarray:
    """Natural logarithms of the law that is searched, [V] float64; all -inf at a dead end."""
    if not law.greedy:
        with np.errstate(divide="ignore"):
            return np.log(law.probs(row, column))
    logits = law.logits(row, column).astype(np.float64)
    largest = logits.max()
    if largest == -np.inf:
        return logits
    logits -= largest
    return logits - np.log(np.exp(logits).sum())


def descending(scores: np.ndarray, first: int) -> Iterator[int]:
    """Indices of scores [N] from the largest down, the lowest index first on a tie, those of -inf left out. `first`: how
    many are probably read; no more than needed are sorted."""
    count, given = min(first, len(scores)), 0
    while given < len(scores):
        least = np.partition(scores, -count)[-count]
        reached = np.flatnonzero((scores >= least) & (scores > -np.inf))
        order = reached[np.argsort(-scores[reached], kind="stable")]
        yield from order[given:].tolist()
        if least == -np.inf:
            return
        given, count = len(order), min(4 * max(count, len(order)), len(scores))


def room(round: Round, row: int) -> int:
    """How many tokens a row may still gain: by its length, and by a budget of tokens."""
    left, budget = int(round.text.remaining()[row]), round.request.budget.tokens
    return left if budget is None else min(left, budget - new_tokens(round, row))


def new_tokens(round: Round, row: int) -> int:
    """Tokens of a row after its prompt."""
    return int(round.text.length[row] - round.text.prompt[row])


def normalised(log_probability: float, length: int, penalty: float) -> float:
    """The score of a hypothesis of `length` new tokens, the end token counted: log-probability / length ** penalty."""
    return log_probability / max(1, length) ** penalty


class BestScore(AllEnd):
    """Ranks candidates by their normalised score, of each group of `width` slots the best `width`. What a budget cut off comes
    after what is finished; a spelling (token for token) that stands there already is left out, and a dead end where there is
    anything else."""

    hypotheses: bool = True

    def __init__(self, length_penalty: float, width: int) -> None:
        self._length_penalty, self._width = length_penalty, width

    def select(self, prompt: str, candidates: Sequence[Candidate], scorers: Mapping[str, Scorer]) -> list[int]:
        order = sorted(range(len(candidates)), key=lambda index: self._key(candidates[index]))
        texts: set[tuple[int, ...]] = set()
        groups: Counter[int] = Counter()
        chosen = []
        for index in order:
            tokens, group = tuple(candidates[index].tokens), candidates[index].slot // self._width
            if self._key(candidates[index])[0] == DEAD or groups[group] == self._width:
                continue
            groups[group] += 1
            if tokens not in texts:
                texts.add(tokens)
                chosen.append(index)
        return chosen or order[:1]

    def _key(self, candidate: Candidate) -> tuple[int, float]:
        if candidate.log_weight == -np.inf:
            return DEAD, -len(candidate.tokens)
        score = normalised(candidate.log_weight, len(candidate.tokens), self._length_penalty)
        return RANK[candidate.finish_reason], -score
