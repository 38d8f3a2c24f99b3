"""How large a token tree should be on this machine: the size whose tokens per call gain more than its columns cost."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from treewright.api import CPU_COLUMNS, Loaded, generate
from treewright.bench.arguments import token_ids
from treewright.bench.costs import claim_costs
from treewright.bench.prompts import WARM_UP
from treewright.core.errors import InputError

CANDIDATES = (1, 3, 7, 15, 23, 31, 47, 63)
"""Nodes beside the frontier; one more is a number of columns that compiled steps are padded to."""
TOKENS = 64


@dataclass(frozen=True, slots=True)
class NodeChoice:
    """costs {claims: seconds of a session's round}, outside: seconds of a round in the loop around it, mat {nodes: tokens
    per call}, the chosen `nodes`, and what the cost model promises for them, the loop's time counted: the ratio to plain."""

    nodes: int
    predicted: float
    costs: dict[int, float]
    mat: dict[int, float]
    outside: float


def cost_at(costs: Mapping[int, float], claims: int) -> float:
    """The cost of a round of `claims`: as measured, or on the line between the measured neighbours.

    Raises InputError beyond the largest size that was measured.
    """
    if claims in costs:
        return costs[claims]
    below = [size for size in costs if size < claims]
    above = [size for size in costs if size > claims]
    if not below or not above:
        measured = ", ".join(map(str, sorted(costs)))
        raise InputError(f"no cost is known for {claims} claims; measured: {measured}; add --claims {claims}")
    low, high = max(below), min(above)
    return costs[low] + (costs[high] - costs[low]) * (claims - low) / (high - low)


def gain(costs: Mapping[int, float], mat: Mapping[int, float], nodes: int) -> float:
    """MAT(nodes) * cost(1) / cost(nodes + 1): the ratio to plain decoding that the cost model allows."""
    return mat[nodes] * cost_at(costs, 1) / cost_at(costs, nodes + 1)


def best_nodes(costs: Mapping[int, float], mat: Mapping[int, float]) -> int:
    """The tree size of `mat` with the largest gain; the smaller one on a tie.

    costs {claims: time of a round}, frontier included, in any unit. mat {nodes: tokens per call}, frontier left out, as
    methods count `nodes`. Raises InputError where `mat` is empty or reaches beyond `costs`.
    """
    if not mat:
        raise InputError("no acceptance was given; give tokens per call for at least one number of nodes")
    return max(sorted(mat), key=lambda nodes: gain(costs, mat, nodes))


def acceptance(loaded: Loaded, method: str, sizes: Sequence[int]) -> tuple[dict[int, float], float]:
    """Tokens per call of `method` at temperature 0 for each number of `nodes`, and the loop's own seconds a round.

    Over the last third of the warm-up prompts, one after another, with what the others and they themselves taught.
    Cost: at most len(sizes) * 9 * TOKENS target calls.
    """
    prompts = [token_ids(loaded, prompt.text) for prompt in WARM_UP]
    teaching = len(prompts) * 2 // 3
    found, outside = {}, []
    for nodes in sizes:
        fresh = dataclasses.replace(loaded, memories={})
        results = [generate(fresh, ids, method, {"nodes": nodes}, max_new_tokens=TOKENS, ignore_eos=True) for ids in prompts]
        traces = [result.trace for result in results[teaching:]]  # type: ignore[union-attr]
        found[nodes] = sum(trace.new_tokens for trace in traces) / sum(len(trace.steps) for trace in traces)
        outside += [(trace.seconds - trace.seconds_in_model) / len(trace.steps) for trace in traces]
    return found, statistics.median(outside)


def measure_nodes(loaded: Loaded, rows: int, method: str = "token_recycling") -> NodeChoice:
    """Measures costs at `rows` rows and acceptance at each candidate size, and chooses. Seconds on a small model.

    Sizes that the engine would cut down on a CPU (rows * columns beyond its limit) are left out. Raises InputError for a
    model without a tokenizer.
    """
    most = CPU_COLUMNS // rows if loaded.model.device.type == "cpu" else max(CANDIDATES) + 1
    sizes = [nodes for nodes in CANDIDATES if nodes + 1 <= most] or [1]
    mat, outside = acceptance(loaded, method, sizes)
    costs = claim_costs(loaded, rows, [1, *(nodes + 1 for nodes in sizes)])
    rounds = {claims: seconds + outside for claims, seconds in costs.items()}
    nodes = best_nodes(rounds, mat)
    return NodeChoice(nodes, gain(rounds, mat, nodes), costs, mat, outside)


def choose_nodes(loaded: Loaded, rows: int) -> int:
    """The number of `nodes` that Token Recycling should use for batches of `rows` on this model and machine."""
    return measure_nodes(loaded, rows).nodes
