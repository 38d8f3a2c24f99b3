"""When two decodings count as equal: exact in float32 and float64; in a 16-bit dtype a divergence is excused only where the
reference nearly drew a tie, nearer than the noise that a wider forward is measured to make on this very text.

The noise is measured, not assumed: the reference text is scored one claim a forward and several claims a forward, and the
answers are compared at every position.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from treewright.core.claims import Forest
from treewright.core.session import Model, Opening
from treewright.core.text import Text

EXACT_DTYPES = (torch.float32, torch.float64)
NARROW_BLOCK = 4
"""Columns at which noise is measured beside the widest that occurred: kernels differ with the width, and two columns often
take the path of one."""

Uniform = Callable[[int], float]
"""The uniform by which the token at an absolute position is drawn."""


def first_divergence(expected: Sequence[int], found: Sequence[int]) -> int | None:
    """The first index at which two token lists differ, None if they are equal. A list that ends early differs there."""
    for index, (left, right) in enumerate(zip(expected, found, strict=False)):
        if left != right:
            return index
    return None if len(expected) == len(found) else min(len(expected), len(found))


@dataclass(frozen=True, slots=True)
class Divergence:
    """Where a decoding left the reference, and whether arithmetic may be the reason.

    index: of the new token, from 0. expected, found: the tokens there, None where that text had ended. margin: how far
    the one-wide reference was from choosing `found`: a difference of logits when greedy, of cumulated probability when
    drawn; infinite where a text had ended or nothing is excused. noise: the largest change of that quantity over the text
    between forwards of one column and of several, up to `width`. exact: the dtype is one in which no divergence is excused.
    """

    index: int
    expected: int | None
    found: int | None
    margin: float
    noise: float
    width: int
    exact: bool

    @property
    def excused(self) -> bool:
        return not self.exact and self.margin < self.noise

    def __str__(self) -> str:
        where = f"differs at new token {self.index} ({_name(self.expected)} expected, {_name(self.found)} found)"
        if self.exact:
            return f"{where}; in this dtype no difference is excused"
        if math.isinf(self.margin):
            return f"{where}; one text ends there"
        relation = "below" if self.excused else "not below"
        return f"{where}; margin {self.margin:.3g} is {relation} the noise {self.noise:.3g} of up to {self.width} columns"


def _name(token: int | None) -> str:
    return "the end" if token is None else str(token)


def judge(
    model: Model, prompt: Sequence[int], expected: Sequence[int], found: Sequence[int], width: int,
    temperature: float = 0.0, uniform: Uniform | None = None,
) -> Divergence | None:  # fmt: skip
    """None if `found` equals `expected`, the decoding of `prompt` one claim at a time; else where and how they part.

    width: columns of the widest forward behind `found`. temperature above 0 needs `uniform`, by which `expected` was
    drawn with no other warper. Cost: none where equal, one forward in a dtype that excuses nothing; else one narrow forward
    for each token of `expected`, and wide ones for every NARROW_BLOCK and for every `width` of them.
    """
    index = first_divergence(expected, found)
    if index is None:
        return None
    widths = sorted({NARROW_BLOCK, max(NARROW_BLOCK, width)})
    ended = index >= min(len(expected), len(found))
    left, right = (None if index >= len(tokens) else tokens[index] for tokens in (expected, found))
    exact, margin, noise = False, math.inf, 0.0
    for position, narrow, wide, exact in replay(model, prompt, expected, widths):
        if exact:
            break
        one = _scale(narrow, temperature)
        noise = max(noise, *(_change(one, _scale(logits, temperature), temperature) for logits in wide))
        if position == index and not ended:
            margin = _margin(one, temperature, left, right, uniform, len(prompt) + index)  # type: ignore[arg-type]
    return Divergence(index, left, right, margin, noise, widths[-1], exact)


def _scale(logits: np.ndarray, temperature: float) -> np.ndarray:
    """What a token is chosen from, [V] float64: logits when greedy, else cumulated probabilities."""
    logits = logits.astype(np.float64)
    if temperature == 0:
        return logits
    weights = np.exp((logits - logits.max()) / temperature)
    return np.cumsum(weights) / weights.sum()


def _change(one: np.ndarray, many: np.ndarray, temperature: float) -> float:
    if temperature > 0:
        return float(np.abs(one - many).max())
    second, first = np.argpartition(one, -2)[-2:]
    return float(abs((one[first] - one[second]) - (many[first] - many[second])))


def _margin(scale: np.ndarray, temperature: float, expected: int, found: int, uniform: Uniform | None, position: int) -> float:
    if temperature == 0:
        return float(abs(scale[expected] - scale[found]))
    if uniform is None:
        raise ValueError(f"temperature is {temperature} but no uniform was given; give the one by which tokens were drawn")
    drawn, below = uniform(position), scale[found - 1] if found else 0.0
    return float(max(below - drawn, drawn - scale[found], 0.0))


def replay(
    model: Model, prompt: Sequence[int], tokens: Sequence[int], widths: Sequence[int]
) -> Iterator[tuple[int, np.ndarray, list[np.ndarray], bool]]:
    """Scores `tokens` after `prompt` one claim a forward and, for each of `widths`, that many, each on a memory of its own.

    Yields, for each token: its index, the narrow logits [V] and the wide ones by which it was predicted, and whether they
    are of a dtype in which decodings must agree exactly. The last token is never read.
    """
    readings = zip(*(_read(model, prompt, tokens, width) for width in (1, *widths)), strict=True)
    for index, ((narrow, exact), *wide) in enumerate(readings):
        yield index, narrow, [logits for logits, _ in wide], exact


def _unrecorded(kind: str, rows: int, columns: int, seconds: float, share: float = 1.0) -> None: ...


def _read(model: Model, prompt: Sequence[int], tokens: Sequence[int], width: int) -> Iterator[tuple[np.ndarray, bool]]:
    length = len(prompt) + len(tokens)
    text = Text(length)
    session = model.open(text, Opening(claims=width, rows=1, length=length), _unrecorded)
    text.admit([prompt], [length])
    session.admit(text, [prompt])
    for start in range(0, len(tokens), width):
        block = list(tokens[start : start + width])
        forest = Forest(text.frontier())
        claims = forest.grow(range(len(block) - 1), np.array([block[:-1]], np.int64)) if len(block) > 1 else range(0)
        answers = session.score(forest)
        exact = answers.logits.dtype in EXACT_DTYPES
        found = [answers.row(0, column).copy() for column in range(len(block))]
        text.append(0, block)
        session.commit([list(claims)])
        yield from ((logits, exact) for logits in found)
