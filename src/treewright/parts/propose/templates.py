"""Tree templates: which children of which rank a static token tree has, guessed or counted from what was accepted.

A node is the path of its ranks from the frontier: (0, 2) is the third child of the first child. To make a template for `stand`,
decode some prompts with a large tree and count:

    results = treewright.generate(model, prompts, "stand", {"nodes": 625, "depth": 20}, temperature=0.6)
    write_template("template.json", best_template(accepted_ranks(result.trace for result in results), nodes=80))

On a CPU `generate` cuts such a tree to the columns that pay there; the engine with `Run.columns` None does not.
"""

from __future__ import annotations

import heapq
import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from treewright.core.errors import InputError
from treewright.core.trace import Trace

Ranks = tuple[int, ...]

FIRST, FALL = 0.6, 0.5
"""How often a first child is the accepted one, and how much less often each next one is; only the order it gives matters."""


def guessed_template(nodes: int, width: int, depth: int) -> tuple[Ranks, ...]:
    """The `nodes` best nodes of the tree with `width` children everywhere and `depth` levels, if a child of rank r is accepted
    FIRST * FALL**r times as often as its parent. Parents before their children, siblings by rank."""
    chosen: list[Ranks] = []
    waiting: list[tuple[float, int, Ranks]] = [(-FIRST, 1, (0,))]
    while waiting and len(chosen) < nodes:
        negative, _, path = heapq.heappop(waiting)
        chosen.append(path)
        if path[-1] + 1 < width:
            heapq.heappush(waiting, (negative * FALL, len(path), (*path[:-1], path[-1] + 1)))
        if len(path) < depth:
            heapq.heappush(waiting, (negative * FIRST, len(path) + 1, (*path, 0)))
    return tuple(chosen)


def accepted_ranks(traces: Iterable[Trace]) -> Counter[Ranks]:
    """How often each node of the trees in these traces was accepted. A rank is a claim's place among its siblings."""
    counts: Counter[Ranks] = Counter()
    for trace in traces:
        for step in trace.steps:
            path: Ranks = ()
            above = 0
            for column in step.accepted:
                path = (*path, sum(parent == above for parent in step.parent[:column]))
                counts[path] += 1
                above = column
    return counts


def best_template(counts: Mapping[Ranks, int], nodes: int) -> tuple[Ranks, ...]:
    """The `nodes` nodes with the highest counts that hold, with each node, its parent and its earlier siblings; the best first.

    A child of rank r is the r-th draw, so it exists only beside the draws before it: a node is worth taking for itself and for
    what it opens, and is taken when its count is the highest of those that are open.
    """
    every = {path for known in counts for path in _needed(known)}
    chosen: list[Ranks] = []
    # What a node opens may be worth more than itself: it is as good as the best node that needs it.
    worth = {path: 0 for path in every}
    for known, count in counts.items():
        for path in _needed(known):
            worth[path] = max(worth[path], count)
    waiting: list[tuple[int, int, Ranks]] = [(-worth[(0,)], 1, (0,))] if every else []
    while waiting and len(chosen) < nodes:
        _, _, path = heapq.heappop(waiting)
        chosen.append(path)
        for opened in ((*path[:-1], path[-1] + 1), (*path, 0)):
            if opened in every:
                heapq.heappush(waiting, (-worth[opened], len(opened), opened))
    return tuple(chosen)


def _needed(path: Ranks) -> Iterable[Ranks]:
    """A node, its earlier siblings, and the same of each node above it."""
    for length, rank in enumerate(path):
        for earlier in range(rank + 1):
            yield (*path[:length], earlier)


def write_template(path: str | Path, template: Iterable[Ranks]) -> None:
    """Writes a template as JSON: a list of rank paths, the best first."""
    Path(path).write_text(json.dumps([list(ranks) for ranks in template]) + "\n", encoding="utf-8")


def read_template(path: str | Path) -> tuple[Ranks, ...]:
    """The rank paths of a file. Raises InputError where it is missing, or is no list of rank paths in which each comes after its
    parent and its earlier siblings."""
    try:
        found: Any = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(
            f"template '{path}' cannot be read ({error}); give a JSON list of rank paths: [[0], [1], [0, 0]]"
        ) from error
    known: set[Ranks] = set()
    for entry in found if isinstance(found, list) else [found]:
        ranks = tuple(entry) if isinstance(entry, list) and all(type(rank) is int and rank >= 0 for rank in entry) else ()
        if not ranks or ranks in known or not _opened(ranks, known):
            raise InputError(
                f"template '{path}' holds {entry!r}; allowed: each list of ranks once, after its parent and its earlier siblings"
            )
        known.add(ranks)
    if not known:
        raise InputError(f"template '{path}' has no nodes; give a JSON list of rank paths: [[0], [1], [0, 0]]")
    return tuple(dict.fromkeys(tuple(entry) for entry in found))


def _opened(path: Ranks, known: Collection[Ranks]) -> bool:
    parent = len(path) == 1 or path[:-1] in known
    return parent and (path[-1] == 0 or (*path[:-1], path[-1] - 1) in known)
