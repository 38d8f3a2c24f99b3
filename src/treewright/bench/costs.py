"""What a round costs: our score and commit of n claims, and a bare cached forward of transformers over n tokens."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from treewright.api import Loaded
from treewright.bench.rounds import Rounds
from treewright.core.claims import Forest, Shape

ACCEPTED = 2
"""Claims that each timed round commits, as far as it has so many, beside the bonus token."""
GROWTH = 96
"""New tokens after which a timed session is opened afresh, so that all sizes are measured over about the same text."""

BURST = 4
SLOW = 0.25
"""Rounds of a burst; seconds of a round from which one is enough."""


def chain(claims: int) -> Shape:
    """The frontier and one claim after another."""
    return Shape.frontier().grow(range(claims - 1))


def tree(claims: int) -> Shape:
    """The frontier and a binary tree below it, breadth first."""
    return Shape.frontier().grow([(column - 1) // 2 for column in range(1, claims)])


SHAPES: dict[str, Callable[[int], Shape]] = {"tree": tree, "chain": chain}


@dataclass(frozen=True, slots=True)
class Round:
    """Seconds of one round, and those of them in the model's own forward."""

    seconds: float
    forward: float


class Lane(Protocol):
    """Something whose rounds are timed."""

    def round(self, claims: int) -> Round: ...


def first_path(shape: Shape, longest: int) -> list[int]:
    """The columns of the walk that always takes a claim's first child, at most `longest`."""
    path: list[int] = []
    children = shape.children(0)
    while len(path) < longest and children[path[-1] if path else 0]:
        path.append(children[path[-1] if path else 0][0])
    return path


class Session:
    """Rounds of our session: score a prepared forest, commit a path of ACCEPTED claims and a bonus token.

    Each size has a session of its own, opened for just so many claims, as a method of that size would open it.
    """

    def __init__(self, loaded: Loaded, rows: int, context: int, shape: str) -> None:
        self._loaded, self._rows, self._context, self._shape = loaded, rows, context, SHAPES[shape]
        self._random = np.random.default_rng(0)
        self._open: dict[int, Rounds] = {}

    def _tokens(self, count: int) -> np.ndarray:
        return self._random.integers(0, self._loaded.protocol.capabilities.vocabulary, size=(self._rows, count))

    def _rounds(self, claims: int) -> Rounds:
        known = self._open.get(claims)
        if known is None or known.text.remaining().min() <= ACCEPTED:
            prompts = self._tokens(self._context).tolist()
            known = self._open[claims] = Rounds(self._loaded, prompts, claims, GROWTH)
        return known

    def round(self, claims: int) -> Round:
        rounds, shape = self._rounds(claims), self._shape(claims)
        path = first_path(shape, ACCEPTED)
        forest = rounds.forest()
        forest.replace(shape, np.concatenate([forest.token, self._tokens(claims - 1)], axis=1))
        emitted = np.concatenate([forest.token[:, path], self._tokens(1)], axis=1)
        return self._timed(rounds, forest, path, emitted)

    def _timed(self, rounds: Rounds, forest: Forest, path: list[int], emitted: np.ndarray) -> Round:
        before = rounds.forward_seconds
        begin = now(self._loaded)
        rounds.score(forest)
        rounds.advance(path, emitted)
        return Round(now(self._loaded) - begin, rounds.forward_seconds - before)


class Bare:
    """A cached forward of the transformers model itself, as its `generate` calls it; cropping is not timed."""

    def __init__(self, loaded: Loaded, rows: int, context: int) -> None:
        self._loaded, self._rows = loaded, rows
        self._random = torch.Generator().manual_seed(0)
        self._cache = None
        self._forward(context)

    def _forward(self, count: int) -> float:
        vocabulary = self._loaded.protocol.capabilities.vocabulary
        ids = torch.randint(vocabulary, (self._rows, count), generator=self._random).to(self._loaded.model.device)
        begin = now(self._loaded)
        with torch.no_grad():
            output = self._loaded.model(input_ids=ids, past_key_values=self._cache, use_cache=True)
        seconds = now(self._loaded) - begin
        self._cache = output.past_key_values
        return seconds

    def round(self, claims: int) -> Round:
        seconds = self._forward(claims)
        self._cache.crop(-claims)  # type: ignore[attr-defined]
        return Round(seconds, seconds)


def now(loaded: Loaded) -> float:
    """A clock that waits for the model's device."""
    if loaded.model.device.type == "cuda":
        torch.cuda.synchronize(loaded.model.device)
    return time.perf_counter()


def measure(
    lanes: Mapping[str, Lane], claims: Sequence[int], repeats: int, budget: float = float("inf")
) -> dict[str, dict[int, Round]]:
    """The median round of each lane at each number of claims.

    One pass over all is discarded (it compiles, allocates and warms caches); then come `repeats` passes, lane after lane at
    each size, so that a drift of the machine meets all alike. In a pass each lane makes a burst of rounds, as decoding does;
    the first of a burst is left out, since it finds the caches full of another lane's data. After `budget` seconds no
    further pass begins, but two are made.
    """
    seen: dict[str, dict[int, list[Round]]] = {name: {size: [] for size in claims} for name in lanes}
    for size in claims:
        for lane in lanes.values():
            lane.round(size)
    begin = time.perf_counter()
    for done in range(repeats):
        if done >= 2 and time.perf_counter() - begin > budget:
            break
        for size in claims:
            for name, lane in lanes.items():
                seen[name][size] += _burst(lane, size)
    return {name: {size: _median(rounds) for size, rounds in sizes.items()} for name, sizes in seen.items()}


def _burst(lane: Lane, claims: int) -> list[Round]:
    """BURST rounds without the first, or one round where a round is so slow that caches do not matter."""
    rounds = [lane.round(claims)]
    if rounds[0].seconds > SLOW:
        return rounds
    return [lane.round(claims) for _ in range(BURST - 1)]


def _median(rounds: Iterable[Round]) -> Round:
    known = list(rounds)
    return Round(statistics.median(r.seconds for r in known), statistics.median(r.forward for r in known))


def claim_costs(loaded: Loaded, rows: int, claims: Sequence[int], context: int = 128, repeats: int = 5) -> dict[int, float]:
    """Seconds of a round for each number of claims (frontier included), tree-shaped, commit included.

    Cost in model calls: len(claims) * (BURST * repeats + 1), and the reading of `context` random tokens for each size.
    """
    lane = Session(loaded, rows, context, "tree")
    return {size: found.seconds for size, found in measure({"ours": lane}, claims, repeats)["ours"].items()}
