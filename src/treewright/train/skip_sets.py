"""Which parts of a model `draft_and_verify` should leave out: sets are tried on prompts, the fastest is kept.

    from treewright.train.skip_sets import find_skip_sets
    found = find_skip_sets("default", ["Once upon a time"], trials=40)
    treewright.generate("default", "Once upon a time", "draft_and_verify", found.options)

Zhang et al. 2024 (https://arxiv.org/abs/2309.08168) search once for each model, by Bayesian optimisation of the tokens per
second of a few prompts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from treewright.api import Loaded, Prompt, load, prepare
from treewright.core.errors import CapabilityError, InputError, require
from treewright.core.layers import LayerPlan
from treewright.parts.control.layer_search import LayerSearch


@dataclass(frozen=True, slots=True)
class SkipSets:
    """The best sets that were tried, and their score beside that of the sets the search began with (every second layer)."""

    skip_attention: tuple[int, ...]
    skip_mlp: tuple[int, ...]
    score: float
    start: float

    @property
    def options(self) -> dict[str, Any]:
        """What to give `draft_and_verify`."""
        return {"skip_attention": self.skip_attention, "skip_mlp": self.skip_mlp}


def find_skip_sets(
    model: Any, prompts: Sequence[Prompt], trials: int = 100, new_tokens: int = 32,
    objective: Literal["layers", "seconds"] = "layers", options: Mapping[str, Any] | None = None, seed: int = 0,
) -> SkipSets:  # fmt: skip
    """Tries sets of inner layers' parts at temperature 0, one prompt at a time, all but the first where a Gaussian process
    expects most.

    objective: "layers", new tokens for each forward's worth of layers that ran (1 for plain decoding; the same on every
    machine), or "seconds", new tokens for each second. options: further options of draft_and_verify. Cost: trials times the
    decoding of all prompts. Raises CapabilityError for a model without three layers that can run in part, InputError without
    prompts.
    """
    require(trials >= 1, "trials", trials, "an integer >= 1")
    require(objective in ("layers", "seconds"), "objective", objective, "layers or seconds")
    if not prompts:
        raise InputError("no prompts were given; give one or more texts to try the sets on")
    loaded = model if isinstance(model, Loaded) else load(model)
    layers = loaded.protocol.capabilities.layers
    if layers < 3:
        raise CapabilityError(f"model '{loaded.name}' has {layers} layers that can run in part; give one with 3 or more")
    search, start = LayerSearch(layers, every=1, seed=seed), 0.0
    for trial in range(trials):
        plan = search.next()
        score = tokens_gained(loaded, prompts, {**_skipped(plan), **(options or {})}, new_tokens, objective)
        start = score if trial == 0 else start
        search.tell(plan, score)
    return SkipSets(**_skipped(search.plan), score=search.score, start=start)


def tokens_gained(
    model: Loaded, prompts: Sequence[Prompt], options: Mapping[str, Any], new_tokens: int, objective: str
) -> float:  # fmt: skip
    """New tokens of draft_and_verify for each second, or for each forward's worth of layers. Reading prompts is left out of
    the layers, and part of the seconds."""
    tokens, cost = 0, 0.0
    for prompt in prompts:
        trace = prepare(model, [prompt], "draft_and_verify", options, None, {"max_new_tokens": new_tokens}).finish()[0].trace
        tokens += trace.new_tokens
        cost += trace.seconds if objective == "seconds" else sum(c.share for c in trace.calls if c.kind in ("score", "sketch"))
    return tokens / cost


def _skipped(plan: LayerPlan) -> dict[str, tuple[int, ...]]:
    every = range(plan.layers)
    return {
        "skip_attention": tuple(layer for layer in every if layer not in plan.attention),
        "skip_mlp": tuple(layer for layer in every if layer not in plan.mlp),
    }
