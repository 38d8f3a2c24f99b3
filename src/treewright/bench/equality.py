"""Are the tokens those of plain decoding? A divergence is excused only where rounding alone can explain it.

The reference is our plain greedy decoding of each prompt alone, one claim a round. Forwards of another width or batch round
differently, so in bfloat16 an argmax flips now and then. Where texts part, the reference is replayed up to that point; the
divergence is excused if the reference's logit of its own token exceeds that of the other token by less than the noise:
twice the largest difference that such forwards were measured to make to a logit of this model in this dtype.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from treewright.api import CPU_COLUMNS, Loaded
from treewright.bench.rounds import Rounds

PROBES = 3
"""Texts over which noise is measured."""
PROBE_TOKENS = 64
WIDEST = 32


@dataclass(frozen=True, slots=True)
class Divergence:
    """Where a text first leaves the reference. `margin` is None, and nothing excuses it, where one text merely ends."""

    prompt: int
    position: int
    expected: int | None
    got: int | None
    margin: float | None
    noise: float
    excused: bool


@dataclass(slots=True)
class Equality:
    """The tally over the rows of a measurement."""

    rows: int = 0
    divergences: list[Divergence] = field(default_factory=list)

    @property
    def excused(self) -> int:
        return sum(divergence.excused for divergence in self.divergences)

    @property
    def broken(self) -> int:
        return len(self.divergences) - self.excused

    @property
    def equal(self) -> bool:
        """True if every row is the reference's, but for excused divergences."""
        return self.broken == 0


class Referee:
    """Judges texts against `reference[i]`, the greedy tokens after `prompts[i]`. Model calls are made, once each, only when
    a divergence has to be judged: the replay of that text, and the noise of PROBES texts."""

    def __init__(self, loaded: Loaded, prompts: Sequence[Sequence[int]], reference: Sequence[Sequence[int]]) -> None:
        self._loaded, self._prompts, self._reference = loaded, prompts, reference
        self._logits: dict[int, np.ndarray] = {}
        self._noise: dict[int, float] = {}

    def judge(self, prompt: int, tokens: Sequence[int], rows: int, peer: bool) -> Divergence | None:
        """The first divergence of `tokens` from the reference of `prompt`, None if they are equal. `rows`: the batch it was
        decoded in. `peer`: whether transformers' own forward was used, whose noise is measured apart."""
        reference = self._reference[prompt]
        if list(tokens) == list(reference):
            return None
        shared = min(len(tokens), len(reference))
        position = next((i for i in range(shared) if tokens[i] != reference[i]), shared)
        noise = self.noise(0 if peer else rows)
        if position == shared:
            expected = reference[position] if position < len(reference) else None
            got = tokens[position] if position < len(tokens) else None
            return Divergence(prompt, position, expected, got, None, noise, excused=False)
        logits = self.one_wide(prompt)[position]
        margin = float(logits[reference[position]] - logits[tokens[position]])
        return Divergence(prompt, position, reference[position], tokens[position], margin, noise, margin <= noise)

    def one_wide(self, prompt: int) -> np.ndarray:
        """The logits before each reference token, one claim a round, [T, V]."""
        if prompt not in self._logits:
            tokens = self._reference[prompt]
            rounds = Rounds(self._loaded, [self._prompts[prompt]], 1, len(tokens) + 1)
            found = []
            for token in tokens:
                found.append(rounds.score(rounds.forest()).row(0, 0).copy())
                rounds.advance([], np.array([[token]]))
            self._logits[prompt] = np.stack(found)
        return self._logits[prompt]

    def noise(self, rows: int) -> float:
        """Twice the largest logit difference between one-wide rounds and wide rounds of `rows` rows; rows = 0 stands for
        transformers' own forward of the whole text."""
        if rows not in self._noise:
            probed = [index for index, tokens in enumerate(self._reference) if tokens][:: max(1, len(self._reference) // PROBES)]
            differences = [self._difference(index, rows) for index in probed[:PROBES]]
            self._noise[rows] = 2 * max(differences, default=0.0)
        return self._noise[rows]

    def _difference(self, prompt: int, rows: int) -> float:
        tokens = list(self._reference[prompt][:PROBE_TOKENS])
        wide = self._whole(prompt, tokens) if rows == 0 else self._wide(prompt, tokens, rows)
        return float(np.abs(wide - self.one_wide(prompt)[: len(tokens)]).max())

    def _wide(self, prompt: int, tokens: list[int], rows: int) -> np.ndarray:
        """Logits before each of `tokens` from rounds in which a chain of them is claimed, in `rows` equal rows, [T, V]."""
        width = max(2, min(WIDEST, CPU_COLUMNS // rows))
        rounds = Rounds(self._loaded, [self._prompts[prompt]] * rows, width, len(tokens) + 1)
        found = []
        for start in range(0, len(tokens), width):
            block = np.array([tokens[start : start + width]] * rows)
            forest = rounds.forest()
            forest.grow(range(block.shape[1] - 1), block[:, :-1])
            answers = rounds.score(forest)
            found += [answers.row(0, column).copy() for column in range(block.shape[1])]
            rounds.advance(list(range(1, block.shape[1])), block)
        return np.stack(found)

    def _whole(self, prompt: int, tokens: list[int]) -> np.ndarray:
        """Logits before each of `tokens` from one forward of transformers without a cache, [T, V]."""
        text = [*self._prompts[prompt], *tokens[:-1]]
        ids = torch.tensor([text], device=self._loaded.model.device)
        with torch.no_grad():
            logits = self._loaded.model(input_ids=ids, use_cache=False).logits[0, -len(tokens) :]
        return logits.to(torch.float64 if logits.dtype == torch.float64 else torch.float32).cpu().numpy()
