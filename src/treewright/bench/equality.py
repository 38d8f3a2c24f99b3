"""Are the greedy tokens those of plain decoding? The rule is `core.equality`'s; here it is applied to many texts at once.

The reference is our plain decoding of each prompt alone, one claim a round. Where a text parts from it in a 16-bit dtype, the
divergence is excused if the reference nearly drew a tie there: nearer than the noise that forwards of other widths were
measured to make on this model. The noise is the largest over a few of the run's texts and the text at hand; transformers' own
forward, whose arithmetic differs once more, counts for the peers only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from treewright.api import Loaded
from treewright.core.equality import EXACT_DTYPES, Divergence, first_divergence, replay

PROBES = 3
"""Texts over which noise is measured, beside the judged one."""
WIDTHS = (4, 16, 64)
"""Columns at which noise is measured beside one: kernels differ with the width of a forward, rows times claims."""


@dataclass(frozen=True, slots=True)
class Parted:
    """A row whose text left the reference. `prompt`: its number in the run's list."""

    prompt: int
    divergence: Divergence

    def to_json(self) -> dict[str, Any]:
        """Plain data; the margin is None where none was measured."""
        parted = self.divergence
        margin = None if math.isinf(parted.margin) else parted.margin
        return {
            "prompt": self.prompt, "index": parted.index, "expected": parted.expected, "found": parted.found, "margin": margin,
            "noise": parted.noise, "excused": parted.excused, "sentence": str(parted),
        }  # fmt: skip


@dataclass(slots=True)
class Equality:
    """The tally over the rows of a unit."""

    rows: int = 0
    parted: list[Parted] = field(default_factory=list)

    @property
    def equal(self) -> bool:
        """True if every row is the reference's, but for excused divergences."""
        return all(row.divergence.excused for row in self.parted)


@dataclass(frozen=True, slots=True)
class Replay:
    """A reference text read again. logits [T, V]: what each token was chosen from, one claim a forward. change: the largest
    change of the distance between the two best logits in wider forwards of ours; peer_change: in transformers' own."""

    logits: np.ndarray
    change: float
    peer_change: float


class Referee:
    """Judges texts against `reference[i]`, the greedy tokens after `prompts[i]`.

    Costs model calls only where texts part in a 16-bit dtype: for each such text, and for PROBES texts, once: a forward for
    each token, a fraction of that for each of WIDTHS, and a bare one.
    """

    def __init__(self, loaded: Loaded, prompts: Sequence[Sequence[int]], reference: Sequence[Sequence[int]]) -> None:
        self._loaded, self._prompts, self._reference = loaded, prompts, reference
        self._replays: dict[int, Replay] = {}
        self._exact = loaded.model.dtype in EXACT_DTYPES

    def judge(self, prompt: int, tokens: Sequence[int], peer: bool) -> Parted | None:
        """How `tokens` part from the reference of `prompt`, None if they are equal. `peer`: transformers decoded them."""
        reference = self._reference[prompt]
        index = first_divergence(reference, tokens)
        if index is None:
            return None
        expected, found = (text[index] if index < len(text) else None for text in (reference, tokens))
        margin, noise = math.inf, 0.0
        if not self._exact and expected is not None and found is not None:
            logits = self.replay(prompt).logits[index]
            margin, noise = float(abs(logits[expected] - logits[found])), self.noise(prompt, peer)
        return Parted(prompt, Divergence(index, expected, found, margin, noise, max(WIDTHS), self._exact))

    def noise(self, prompt: int, peer: bool) -> float:
        """The largest change over the text of `prompt` and the probed texts."""
        step = max(1, len(self._reference) // PROBES)
        replays = [self.replay(number) for number in (prompt, *range(0, len(self._reference), step)[:PROBES])]
        return max(max(replay.change, replay.peer_change if peer else 0.0) for replay in replays)

    def replay(self, prompt: int) -> Replay:
        """The reference of `prompt` read again; kept."""
        if prompt not in self._replays:
            tokens = self._reference[prompt]
            read = list(replay(self._loaded.protocol, self._prompts[prompt], tokens, WIDTHS))
            narrow = np.stack([logits for _, logits, _, _ in read]).astype(np.float64)
            wide = [np.stack([many[index] for _, _, many, _ in read]) for index in range(len(WIDTHS))]
            change = max(change_of(narrow, logits) for logits in wide)
            self._replays[prompt] = Replay(narrow, change, change_of(narrow, self._bare(prompt)))
        return self._replays[prompt]

    def _bare(self, prompt: int) -> np.ndarray:
        """Logits before each reference token from one forward of transformers without a cache, [T, V]."""
        tokens = self._reference[prompt]
        ids = torch.tensor([[*self._prompts[prompt], *tokens[:-1]]], device=self._loaded.model.device)
        with torch.no_grad():
            logits = self._loaded.model(input_ids=ids, use_cache=False).logits[0, -len(tokens) :]
        return logits.double().cpu().numpy()


def change_of(one: np.ndarray, other: np.ndarray) -> float:
    """The largest change, over positions, of the distance between the two best logits of `one` [T, V] in `other` [T, V]."""
    rows = np.arange(len(one))
    second, first = np.argpartition(one, -2, axis=-1)[:, -2:].T
    distances = [(logits[rows, first] - logits[rows, second]).astype(np.float64) for logits in (one, other)]
    return float(np.abs(distances[0] - distances[1]).max())
