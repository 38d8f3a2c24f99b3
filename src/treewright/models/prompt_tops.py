"""What a model predicts at each place of its prompts, for those who learn from it."""

from __future__ import annotations

import numpy as np
import torch

from treewright.core.answers import Answers
from treewright.core.claims import ABSENT
from treewright.core.exits import ExitHead
from treewright.ops.largest import top_ids


def read_tops(read: Answers, real: np.ndarray, head: ExitHead | None, count: int) -> np.ndarray:
    """The ids of the `count` largest logits at each place of a block of prompts, [R, n, count], ABSENT beyond a row's end.

    real [R, n] bool: what is not padding. head: where the block was read for its hidden states alone, the way from them to
    logits. The output matrix is a good part of a small model, and a batch with one long prompt is mostly padding.
    """
    tops = np.full((*real.shape, count), ABSENT)
    if head is None:
        tops[:] = top_ids(read.logits, count)
        tops[~real] = ABSENT
    elif real.any():
        states: torch.Tensor = read.hidden  # type: ignore[assignment]
        tops[real] = top_ids(head(states[torch.from_numpy(real).to(states.device)], False), count)
    return tops
