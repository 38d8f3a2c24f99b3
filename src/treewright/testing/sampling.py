"""The sampling law of a method on a real model: frequencies of its first tokens against their exact probabilities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from treewright.api import Loaded, generate
from treewright.testing.enumerate import Tokens
from treewright.testing.scoring import Reference, bare_reference
from treewright.testing.statistics import ChiSquare, chi_square

ALPHA = 1e-4
"""The test fails where a sample as far from the law has a lower probability than this."""

OTHER = -1
TOP = 4
COUNTED = (1, 2, 3)
NEW_TOKENS = 4
ROWS = 8
"""Rows at once: on a CPU the engine gives each of eight rows eight columns, enough for a small tree."""


class FirstTokens:
    """The exact law of the first tokens at temperature 1, told apart as far as a sample can tell.

    A cell is a sequence of tokens that are each among the 4 most probable of their context, or such a sequence and OTHER
    for any other token, with which the cell ends. So the law needs few forwards, and arithmetic noise moves no token in or
    out of the support, as a top-k limit would. Cost: 1 + 4 + 16 bare forwards for three tokens.
    """

    def __init__(self, read: Reference, prompt: Sequence[int], length: int) -> None:
        self._top: dict[Tokens, dict[int, float]] = {}
        open_cells: list[Tokens] = [()]
        for _ in range(length):
            for new in open_cells:
                logits = read(prompt, new)
                chances = np.exp(logits - logits.max())
                chances /= chances.sum()
                likeliest = np.argsort(-chances)[:TOP].tolist()
                top = {token: float(chances[token]) for token in likeliest}
                self._top[new] = top | {OTHER: max(0.0, 1.0 - sum(top.values()))}
            open_cells = [(*new, token) for new in open_cells for token in self._top[new] if token != OTHER]

    def cell(self, tokens: Sequence[int]) -> Tokens:
        """The cell of a sequence."""
        cell: Tokens = ()
        for token in tokens:
            if token not in self._top[cell]:
                return (*cell, OTHER)
            cell = (*cell, token)
        return cell

    def law(self, length: int) -> dict[Tokens, float]:
        """The probability of every cell of sequences of `length` tokens."""
        law: dict[Tokens, float] = {(): 1.0}
        for _ in range(length):
            longer = {cell: chance for cell, chance in law.items() if OTHER in cell}
            for cell in law.keys() - longer.keys():
                longer |= {(*cell, token): law[cell] * chance for token, chance in self._top[cell].items()}
            law = longer
        return law


def entropy(logits: np.ndarray) -> float:
    """The entropy of softmax(logits [V]) in nats."""
    shifted = logits - logits.max()
    return float(np.log(np.exp(shifted).sum()) - (shifted * np.exp(shifted)).sum() / np.exp(shifted).sum())


def sampling_law(
    model: Loaded, roles: Mapping[str, Loaded], method: str, prompts: Sequence[Sequence[int]], samples: int, seed: int
) -> dict[int, ChiSquare]:
    """Tests of the method's first one, two and three tokens at temperature 1, by how many tokens they look at.

    Drawn after the prompt that leaves the model least certain, since a certain model shows nothing.
    """
    read = bare_reference(model)
    prompt = max(prompts, key=lambda prompt: entropy(read(prompt, ())))
    first = FirstTokens(read, prompt, max(COUNTED))
    result = generate(
        model, [list(prompt)], method, models=roles, max_new_tokens=NEW_TOKENS, temperature=1.0, seed=seed, n=samples,
        ignore_eos=True, batch_rows=ROWS,
    )  # fmt: skip
    drawn = [sample.tokens for sample in result[0].samples]  # type: ignore[index]
    return {count: chi_square([first.cell(tokens[:count]) for tokens in drawn], first.law(count)) for count in COUNTED}
