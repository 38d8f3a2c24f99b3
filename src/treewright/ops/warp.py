"""Logits to the probabilities of a sampling law, on the host, for the few claims a walk visits.

The order is that of transformers: bias, penalties, then temperature, top-k, top-p, min-p, typical. Everything is float64, so
that a draft's law and a target's law can be divided by each other.
"""

from __future__ import annotations

import numpy as np

from treewright.core.request import Sampling

NUCLEUS_GUESS = 64
"""Tokens among which the nucleus is looked for first, so that a vocabulary is not sorted for a handful."""


def penalised(logits: np.ndarray, prefix: np.ndarray, prompt: int, sampling: Sampling) -> np.ndarray:
    """Logits [V] after logit bias and the penalties for the tokens of prefix [L], of which `prompt` were given.

    The repetition penalty counts the prompt (Keskar et al. 2019); presence and frequency count new tokens only.
    """
    logits = logits.astype(np.float64)
    for token, bias in sampling.logit_bias:
        logits[token] += bias
    if sampling.repetition_penalty != 1:
        used = np.unique(prefix)
        chosen = logits[used]
        logits[used] = np.where(chosen < 0, chosen * sampling.repetition_penalty, chosen / sampling.repetition_penalty)
    if sampling.presence_penalty or sampling.frequency_penalty:
        used, counts = np.unique(prefix[prompt:], return_counts=True)
        logits[used] -= sampling.presence_penalty + sampling.frequency_penalty * counts
    return logits


def probabilities(logits: np.ndarray, sampling: Sampling) -> np.ndarray:
    """The law [V] float64 of one claim's logits [V]: sums to 1, or to 0 where every logit is -inf.

    At temperature 0 all mass lies on the largest logit, the lowest id on a tie.
    """
    largest = logits.max()
    if largest == -np.inf:
        return np.zeros(len(logits))
    if sampling.greedy:
        law = np.zeros(len(logits))
        law[int(logits.argmax())] = 1.0
        return law
    scaled = (logits.astype(np.float64) - largest) / sampling.temperature
    if sampling.top_k is not None and sampling.top_k < len(scaled):
        kth = np.partition(scaled, -sampling.top_k)[-sampling.top_k]
        scaled[scaled < kth] = -np.inf
    law = np.exp(scaled)
    law /= law.sum()
    if sampling.top_p is not None and sampling.top_p < 1:
        law = _nucleus(law, sampling.top_p)
    if sampling.min_p is not None:
        law = _renormalised(np.where(law < sampling.min_p * law.max(), 0.0, law))
    if sampling.typical_p is not None and sampling.typical_p < 1:
        law = _typical(law, sampling.typical_p)
    return law


def _renormalised(law: np.ndarray) -> np.ndarray:
    return law / law.sum()


def _nucleus(law: np.ndarray, mass: float) -> np.ndarray:
    """Keeps the most probable tokens whose sum first reaches `mass` (Holtzman et al. 2020); sorts only what may count."""
    support = np.flatnonzero(law > (1 - mass) / len(law))
    size = NUCLEUS_GUESS
    while size < len(support):
        top = np.sort(support[np.argpartition(-law[support], size)[:size]])
        kept = _until(law, top, mass)
        # Equal tokens may lie on both sides of the cut; then only a wider cut knows which come first.
        if len(kept) < size and law[kept[-1]] > law[top].min():
            break
        size *= 8
    else:
        kept = _until(law, support, mass)
    out = np.zeros_like(law)
    out[kept] = law[kept]
    return _renormalised(out)


def _until(law: np.ndarray, tokens: np.ndarray, mass: float) -> np.ndarray:
    """The most probable of `tokens`, in order, until their sum reaches `mass`."""
    order = tokens[np.argsort(-law[tokens], kind="stable")]
    return order[np.cumsum(law[order]) - law[order] < mass]


def _typical(law: np.ndarray, mass: float) -> np.ndarray:
    """Keeps the tokens whose surprisal is nearest to the entropy until they hold `mass`, and all that are as near as the
    last of them (Meister et al. 2022)."""
    support = np.flatnonzero(law)
    surprisal = -np.log(law[support])
    distance = np.abs(surprisal - float((law[support] * surprisal).sum()))
    order = np.argsort(distance, kind="stable")
    last = min(int((np.cumsum(law[support[order]]) < mass).sum()), len(order) - 1)
    kept = support[distance <= distance[order[last]]]
    out = np.zeros_like(law)
    out[kept] = law[kept]
    return _renormalised(out)
