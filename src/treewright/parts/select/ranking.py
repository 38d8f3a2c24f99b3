"""Orders of candidates, and how much each of them counts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from treewright.core.selection import Candidate


class AllEnd:
    """For selectors that wait for every candidate, and searches that end their rows themselves."""

    hypotheses: bool = False

    def enough(self, ended: Sequence[Candidate], running: int) -> bool:
        return False


def whole(candidates: Sequence[Candidate]) -> list[int]:
    """The indices of the finished candidates; of all where none has finished."""
    return [index for index, one in enumerate(candidates) if one.finished] or list(range(len(candidates)))


def ranked(candidates: Sequence[Candidate], scores: Sequence[float]) -> list[int]:
    """All indices, the largest score first, finished candidates before others; on a tie the lowest sample."""
    return sorted(range(len(scores)), key=lambda i: (not candidates[i].finished, -scores[i], candidates[i].sample))


def probability_weights(candidates: Sequence[Candidate], indices: Sequence[int], per_token: bool = False) -> Mapping[int, float]:
    """The share of each of these candidates in their probability under the model: {index: weight}, sum 1. A token sequence that
    was drawn several times counts once, for its lowest sample; the others weigh 0. per_token: of their probability per token,
    the geometric mean, instead."""
    by_sample = sorted(indices, key=lambda index: -candidates[index].sample)
    first = set({tuple(candidates[index].tokens): index for index in by_sample}.values())
    logs = {i: candidates[i].logprob / max(1, len(candidates[i].tokens) if per_token else 1) for i in first}
    largest = max(logs.values())
    total = math.fsum(math.exp(value - largest) for value in logs.values())
    return {index: math.exp(logs[index] - largest) / total if index in first else 0.0 for index in indices}
