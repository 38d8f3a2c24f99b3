"""The arithmetic of exact rejection: what is left of a law after a draft was refused."""

from __future__ import annotations

import numpy as np

from treewright.core.claims import Law


def residual(target: np.ndarray, draft: np.ndarray) -> np.ndarray:
    """norm([p - q]+) for laws [V]. Where nothing is left (p and q equal up to rounding) the target law itself."""
    left = np.maximum(target - draft, 0.0)
    total = left.sum()
    return left / total if total > 0 else target


def without(law: np.ndarray, token: int) -> np.ndarray:
    """The law [V] given that it is not `token`; all zero where `token` held everything."""
    left = law.copy()
    left[token] = 0.0
    total = left.sum()
    return left / total if total > 0 else left


def acceptance(target: np.ndarray, draft: np.ndarray | None, token: int) -> float:
    """The probability of accepting `token`: min(1, p/q), or p where the draft was deterministic (draft None)."""
    if draft is None:
        return float(target[token])
    return min(1.0, float(target[token] / draft[token])) if draft[token] > 0 else 0.0


def after_rejection(target: np.ndarray, draft: np.ndarray | None, token: int, law: Law) -> tuple[np.ndarray, np.ndarray | None]:
    """The target's residual and the draft law of the next sibling, after `token` was refused."""
    if draft is None:
        return without(target, token), None
    left = residual(target, draft)
    return left, without(draft, token) if law is Law.SWOR else draft
