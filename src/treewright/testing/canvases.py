"""The bench on which any-order methods are tried: canvases of exact tables and of a small bidirectional model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from treewright.core.request import Request, Sampling
from treewright.core.roles import Outcome, Parts, Round
from treewright.core.session import Model
from treewright.engine.loop import Engine, Run
from treewright.models.masked import MaskedModel
from treewright.models.random_weights import random_masked
from treewright.models.tables import AnyOrderTable
from treewright.testing.reports import CaseReport, Coverage, LawBroken, LawReport

PROMPTS = ((1,), (0, 2, 1, 0), (2, 1))
SLOTS = 7
SAMPLINGS = (Sampling(), Sampling(1.0))


class Auditor:
    """An observer that breaks the law where a round fills nothing, fills a slot twice, or fills it with the mask."""

    prompt_top = 0

    def __init__(self) -> None:
        self._open: dict[tuple[int, int], int] = {}

    def read_prompts(self, round: Round, prompts: Sequence[Sequence[int]], top: np.ndarray) -> None:
        """Nothing to check."""

    def observe(self, outcome: Outcome) -> None:
        round, verdict = outcome.round, outcome.verdict
        for row, left in enumerate(round.text.remaining().tolist()):
            forest, path = round.forest, verdict.paths[row]
            claimed = {(int(forest.slot[row, c]), int(forest.token[row, c])) for c in path} if path else set()  # type: ignore[index]
            fills = sorted({*claimed, *(verdict.fills[row] if verdict.fills else [])})
            slots = [slot for slot, _ in fills]
            before = self._open.get(round.keys[row], SLOTS)
            if not fills or len(set(slots)) != len(slots) or left != before - len(fills):
                raise LawBroken(f"row {row} had {before} open slots, was filled with {fills}, and has {left}")
            if round.text.blank in [token for _, token in fills]:
                raise LawBroken(f"row {row} was filled with the mask: {fills}")
            self._open[round.keys[row]] = left


@dataclass(slots=True)
class Played:
    """Tokens of every row, the calls of the run, and the rounds of the first row."""

    tokens: list[list[int]]
    calls: int
    coverage: Coverage


def play(model: Model, parts: Parts, prompts: Sequence[Sequence[int]], **request: Any) -> Played:
    """One run of all prompts at once."""
    asked = Request(tuple(tuple(prompt) for prompt in prompts), **{"max_new_tokens": SLOTS, **request})
    engine = Engine(Run(asked, {"target": model}, parts.join(Parts(observe=(Auditor(),)))))
    for _ in engine.run():
        pass
    coverage = Coverage()
    for trace in engine.traces.values():
        coverage.add(trace.steps)
    tokens = [engine.finished[row, 0].tokens for row in range(len(prompts))]
    return Played(tokens, engine.traces[len(prompts) - 1, 0].model_calls, coverage)


def models(seeds: int) -> Iterator[tuple[str, MaskedModel | AnyOrderTable]]:
    """Any-order tables, and for every third of them a bidirectional transformers model in float64."""
    for seed in range(seeds):
        yield f"table {seed}", AnyOrderTable(4, seed)
        if seed % 3 == 0:
            network = random_masked(seed=seed)
            yield f"network {seed}", MaskedModel(network, network.config.mask_token_id)


def fills_canvas(subject: str, make: Callable[[], Parts], seeds: int) -> LawReport:
    """See `laws.fills_canvas`."""
    cases = []
    for name, model in models(seeds):
        for sampling in SAMPLINGS:
            together = play(model, make(), PROMPTS, sampling=sampling)
            for row, prompt in enumerate(PROMPTS):
                # The key of randomness is the prompt's number, so a row alone keeps its place behind empty company.
                alone = play(model, make(), [prompt] * (row + 1), sampling=sampling, batch_rows=1).tokens[row]
                _same(f"{subject}, {name}: row {row} of a batch", together.tokens[row], "alone", alone)
                if len(alone) != SLOTS:
                    raise LawBroken(f"{subject}, {name}: {len(alone)} tokens where {SLOTS} slots were asked for")
            stop = together.tokens[0][SLOTS // 2]
            stopped = play(model, make(), PROMPTS[:1], sampling=sampling, stop_ids=(stop,)).tokens[0]
            if (stopped.index(stop) + 1 if stop in stopped else SLOTS) != len(stopped):
                raise LawBroken(f"{subject}, {name}: a row with the stop {stop} gave {stopped}")
            cases.append(CaseReport(f"{name}, temperature {sampling.temperature}", 0.0, together.coverage))
    return LawReport("fills_canvas", subject, 0.0, cases)


def equals_static(
    subject: str, make: Callable[[], Parts], static: Callable[[], Parts], options: Mapping[str, Any], seeds: int
) -> LawReport:
    """See `laws.equals_static`."""
    cases, calls = [], [0, 0]
    by_definition = options.get("rank", "confidence") == "confidence" and not options.get("ends_last")
    for name, model in models(seeds):
        for sampling in SAMPLINGS:
            ours = play(model, make(), PROMPTS, sampling=sampling)
            theirs = play(model, static(), PROMPTS, sampling=sampling)
            calls = [calls[0] + ours.calls, calls[1] + theirs.calls]
            expected = theirs.tokens
            if sampling.greedy and by_definition:
                block, width = int(options.get("block", 0)), int(options.get("tokens", 1))
                expected = [static_tokens(field_of(model), model.capabilities.mask, prompt, block, width) for prompt in PROMPTS]
            for row in range(len(PROMPTS)):
                _same(f"{subject}, {name}, temperature {sampling.temperature}", ours.tokens[row], "static", expected[row])
            if ours.calls > theirs.calls:
                raise LawBroken(f"{subject}, {name}: {ours.calls} calls where the static schedule needs {theirs.calls}")
            cases.append(CaseReport(f"{name}, temperature {sampling.temperature}", 0.0, ours.coverage))
    if calls[0] >= calls[1]:
        raise LawBroken(f"{subject} needed {calls[0]} calls in all, the static schedule {calls[1]}; it saved nothing")
    return LawReport("equals_static", subject, 0.0, cases)


def _same(ours: str, tokens: list[int], theirs: str, others: list[int]) -> None:
    if tokens != others:
        raise LawBroken(f"{ours} gives {tokens}, {theirs} {others}")


def field_of(model: MaskedModel | AnyOrderTable) -> Callable[[np.ndarray], np.ndarray]:
    """Probabilities [T, V] of a canvas [T] by a bare forward, the mask left out."""
    if isinstance(model, AnyOrderTable):
        return model.field

    def field(canvas: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            logits = model.network(input_ids=torch.from_numpy(canvas)[None]).logits[0]
        return logits[:, : model.mask].softmax(-1).numpy()

    return field


def static_tokens(
    field: Callable[[np.ndarray], np.ndarray], mask: int | None, prompt: Sequence[int], block: int, width: int, slots: int = SLOTS
) -> list[int]:
    """The definition: one answer a step; of the first block with open slots, the `width` whose best token is most probable."""
    canvas = np.array([*prompt, *[mask] * slots])
    size = block or slots
    for start in range(len(prompt), len(canvas), size):
        inside = range(start, min(start + size, len(canvas)))
        while waiting := [slot for slot in inside if canvas[slot] == mask]:
            laws = field(canvas)
            for slot in sorted(waiting, key=lambda slot: (-laws[slot].max(), slot))[:width]:
                canvas[slot] = laws[slot].argmax()
    return canvas[len(prompt) :].tolist()
