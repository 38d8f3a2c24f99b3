"""The logits processors of transformers as a steering part: each row's own processors, called at the claims a walk visits."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from transformers.generation import logits_process as lp

from treewright.core.errors import CompositionError

Processor = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

STATEFUL = (lp.UnbatchedClassifierFreeGuidanceLogitsProcessor, lp.SynthIDTextWatermarkLogitsProcessor)

# These look at their own line of input_ids and scores only, so a batch of one tells them all they need. Named one by one:
# a subclass may do more.
ONE_LINE = frozenset({
    lp.MinLengthLogitsProcessor, lp.MinNewTokensLengthLogitsProcessor, lp.TemperatureLogitsWarper, lp.TopPLogitsWarper,
    lp.TopKLogitsWarper, lp.TopHLogitsWarper, lp.MinPLogitsWarper, lp.TypicalLogitsWarper, lp.EpsilonLogitsWarper,
    lp.EtaLogitsWarper, lp.NoRepeatNGramLogitsProcessor, lp.SequenceBiasLogitsProcessor, lp.NoBadWordsLogitsProcessor,
    lp.ForcedBOSTokenLogitsProcessor, lp.ForcedEOSTokenLogitsProcessor, lp.InfNanRemoveLogitsProcessor,
    lp.ExponentialDecayLengthPenalty, lp.LogitNormalization, lp.SuppressTokensAtBeginLogitsProcessor,
    lp.SuppressTokensLogitsProcessor, lp.WatermarkLogitsProcessor,
})  # fmt: skip


class Processors:
    """Steering part: what transformers' processors make of a claim's logits.

    Each call sees the line that transformers would show at this point: the row as the caller padded it, with the claimed
    tokens behind, because processors that count tokens count the padding too. Scores are float32, as there. A processor
    of unknown type is shown a batch of equal lines, and its answer is read in the row's own line; processors therefore
    must not carry state from one call to the next.

    input_ids [R, T], padding [R]: pad tokens on the left of each row; row r is sample r % samples of prompt r // samples.
    Raises CompositionError for the processors of transformers that are known to carry state.
    """

    models: tuple[str, ...] = ()

    def __init__(self, processors: Sequence[Processor], input_ids: torch.Tensor, padding: Sequence[int], samples: int) -> None:
        stateful = next((part for part in processors if isinstance(part, STATEFUL)), None)
        if stateful is not None:
            raise CompositionError(
                f"logits processor {type(stateful).__name__} carries state from one call to the next, which decoding several "
                "tokens in a call cannot honour; drop the option that adds it, or call generate without custom_generate"
            )
        rows = input_ids.shape[0]
        self._samples, self._device = samples, input_ids.device
        self._padding = [input_ids[row, :count].cpu().numpy() for row, count in enumerate(padding)]
        self._lines = [[_for_line(part, row, rows) for part in processors] for row in range(rows)]

    def prompt(self, model: str, prompt: Sequence[int]) -> Sequence[int]:
        return prompt

    def steer(self, logits: np.ndarray, others: Mapping[str, np.ndarray], prefix: np.ndarray, row: tuple[int, int]) -> np.ndarray:
        line = row[0] * self._samples + row[1]
        ids = torch.from_numpy(np.concatenate([self._padding[line], prefix]))[None].to(self._device)
        scores = torch.tensor(logits, dtype=torch.float32, device=self._device)[None]
        for process in self._lines[line]:
            scores = process(ids, scores)
        return scores[0].float().cpu().numpy()


def _for_line(processor: Processor, row: int, rows: int) -> Processor:
    """`processor` as it treats line `row` of a batch of `rows`, taking a batch of one."""
    kind = type(processor)
    if rows == 1 or kind in ONE_LINE:
        return processor
    if kind is lp.RepetitionPenaltyLogitsProcessor:
        ignored = processor.prompt_ignore_length  # type: ignore[attr-defined]
        if not isinstance(ignored, torch.Tensor):
            return processor
        own = copy.copy(processor)
        own.prompt_ignore_length = ignored[row : row + 1]  # type: ignore[attr-defined]
        return own

    def process(ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        return processor(ids.repeat(rows, 1), scores.repeat(rows, 1))[row : row + 1]

    return process
