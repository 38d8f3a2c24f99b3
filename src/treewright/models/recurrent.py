"""Finding out what a recurrent or hybrid model keeps, and whether its forwards go on from it rightly.

The second is asked of the model itself, because the answer differs between models that share an interface: some start
their scan at zero in any forward of more than one token, some clamp the time step in such forwards and not in forwards of
one. None of them raises. (docs/add-a-model.md has the table.)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch

from treewright.core.answers import Answers
from treewright.core.exits import ExitHead
from treewright.core.session import Capabilities
from treewright.models.states import Copies, StateLayout, States

LARGEST_ERROR = {torch.float64: 1e-5, torch.float32: 1e-5}
LARGEST_ERROR_16_BIT = 0.05
"""Root mean square, as a part of the logits' standard deviation. transformers computes states in float32 whatever the dtype,
so float64 gains little here. Two right ways differ by up to 1e-6; the mildest wrong one that is known, Nemotron-H's step of
one token, by 1.6e-5."""

TOKENS = 9
DISLIKED = (AttributeError, IndexError, KeyError, NotImplementedError, RuntimeError, TypeError, ValueError)
"""What models with a cache of their own raise when they are given this one."""


class GoesOn(Protocol):
    """What this family needs of its model; `CausalModel` says what each is."""

    model: Any
    config: Any
    capabilities: Capabilities
    device: torch.device
    dtype: torch.dtype

    @property
    def head(self) -> ExitHead | None: ...

    def go_on(
        self, ids: np.ndarray, positions: np.ndarray, mask: torch.Tensor | None, cache: Copies,
        keep: int = 0, hidden: bool = False, layers: bool = False,
    ) -> Answers: ...  # fmt: skip

    def timed(self) -> float: ...


def state_layout(model: GoesOn) -> StateLayout | None:
    """What the model's cache holds after one token; None where it has no states, or a cache of its own. One forward."""
    cache = StateLayout.fresh(model.config)
    if cache is None:
        return None
    try:
        model.go_on(np.zeros((1, 1), np.int64), np.zeros((1, 1), np.int64), None, cache)
        layout = StateLayout.of(cache, model.dtype, model.device)
    except DISLIKED:
        return None
    return layout if layout.states else None


def read_on(
    model: GoesOn, states: States, rows: Sequence[int], sequences: Sequence[np.ndarray], keep: int = 0, hidden: bool = False,
    layers: bool = False,
) -> tuple[Answers, Copies]:  # fmt: skip
    """One forward in which sequences[i] follows what `states` hold of rows[i]; answers [R, T, V], and the cache after it.

    Shorter sequences are padded on the right. Nothing reads padding, but what the cache holds of a padded row after the
    forward is of no use.
    """
    count, span = max(map(len, sequences)), states.span(rows)
    ids = np.zeros((len(rows), count), np.int64)
    for row, sequence in enumerate(sequences):
        ids[row, : len(sequence)] = sequence
    stored = states.stored[list(rows)]
    mask = _mask(stored, span, count, model) if states.attends else None
    cache = states.copies(rows)
    return model.go_on(ids, stored[:, None] + np.arange(count)[None], mask, cache, keep, hidden, layers), cache


def _mask(stored: np.ndarray, span: int, count: int, model: GoesOn) -> torch.Tensor:
    """Additive mask [R, 1, count, span + count]: what is stored of a row, and its own new tokens in order."""
    allowed = np.zeros((len(stored), count, span + count), bool)
    allowed[:, :, :span] = (np.arange(span)[None] < stored[:, None])[:, None]
    allowed[:, :, span:] = np.tril(np.ones((count, count), bool))
    mask = torch.zeros(allowed.shape, dtype=model.dtype)
    mask.masked_fill_(torch.from_numpy(~allowed), torch.finfo(model.dtype).min)
    return mask[:, None].to(model.device)


@torch.inference_mode()
def continues(model: GoesOn, layout: StateLayout) -> bool:
    """True if forwards of several tokens and of one go on from a filled state as if the text had been read whole.

    Two rows of different lengths, one of them named twice in a padded forward, then single tokens. Costs eight small
    forwards, at load time.
    """
    ids = np.stack([(1 + np.arange(TOKENS) * step) % int(model.config.vocab_size) for step in (5, 3)])
    whole = model.model(input_ids=torch.from_numpy(ids).to(model.device), use_cache=False).logits.double()
    states, errors = States(layout, 2, TOKENS), []
    states.admit(2, TOKENS)
    for rows, count in (([0, 1], 2), ([1], 3), ([0, 1, 1], 0), ([0], 5), ([0, 1], 1), ([1], 1), ([1], 1)):
        starts, span = states.stored[rows].tolist(), states.span(rows)
        ends = [start + count if count else TOKENS - place for place, start in enumerate(starts)]
        pieces = [ids[row, start:end] for row, start, end in zip(rows, starts, ends, strict=True)]
        answers, cache = read_on(model, states, rows, pieces)
        if count:
            states.keep(cache, span, range(len(rows)), rows, count)
        wrong = [
            answers.logits[place, : end - start].double() - whole[row, start:end]
            for place, (row, start, end) in enumerate(zip(rows, starts, ends, strict=True))
        ]
        errors.append(float(torch.cat(wrong).square().mean().sqrt() / whole.std()))
    allowed = LARGEST_ERROR.get(model.dtype, LARGEST_ERROR_16_BIT)
    return all(error <= allowed for error in errors)
