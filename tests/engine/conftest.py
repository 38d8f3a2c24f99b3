"""Toys for the engine's tests: a model that writes a given text, drafters that are right or wrong, listeners that take notes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from treewright.core.claims import Law
from treewright.core.request import Request
from treewright.core.roles import Outcome, Parts, Round
from treewright.engine.loop import Engine, Run
from treewright.models.tables import Table
from treewright.parts.verify.sample_then_match import SampleThenMatch


class Scripted(Table):
    """A model over bytes that writes, after a prompt whose first token is p, the text scripts[p]; zeros when that ends."""

    def __init__(self, scripts: Mapping[int, bytes], prompt: int = 1) -> None:
        super().__init__(256, seed=0)
        self.scripts, self.prompt = scripts, prompt

    def logits(self, prefix: Sequence[int]) -> np.ndarray:
        script, place = self.scripts[int(prefix[0])], len(prefix) - self.prompt
        logits = np.zeros(256)
        logits[script[place] if place < len(script) else 0] = 20.0
        return logits


class Ahead:
    """A drafter that knows what the model will say, `right` tokens far; the claim after them is wrong."""

    def __init__(self, model: Table, right: int = 5) -> None:
        self.model, self.right = model, right

    def propose(self, round: Round) -> None:
        # Deeper than the row may go on purpose: cutting it off is the engine's work.
        token = np.zeros((round.rows, self.right + 1), np.int64)
        for row in range(round.rows):
            prefix = round.text.of(row).tolist()
            for place in range(self.right + 1):
                prefix.append(int(self.model.logits(prefix).argmax()))
                token[row, place] = prefix[-1]
            token[row, -1] = (token[row, -1] + 1) % self.model.vocabulary
        round.forest.grow(range(self.right + 1), token, Law.DELTA)


class Notes:
    """An observer and listener that writes down what it is told."""

    prompt_top = 0

    def __init__(self, cancel_after: int | None = None) -> None:
        self.cancel_after = cancel_after
        self.emitted: dict[tuple[int, int], list[int]] = {}
        self.outcomes: list[Outcome] = []
        self.text: dict[tuple[int, int], list[int]] = {}
        self.tokens: dict[tuple[int, int], list[int]] = {}
        self.pieces: dict[tuple[int, int], list[str]] = {}
        self.ended: list[tuple[int, int]] = []

    def read_prompts(self, round: Round, prompts: Sequence[Sequence[int]], top: np.ndarray) -> None:
        raise AssertionError("nobody asked for the prompt's predictions")

    def observe(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)
        for row, key in enumerate(outcome.round.keys):
            self.emitted.setdefault(key, []).extend(outcome.emitted[row])
            self.text[key] = outcome.round.text.of(row).tolist()

    def hear(self, prompt: int, sample: int, tokens: list[int], piece: str, finished: bool) -> bool:
        key = prompt, sample
        assert key not in self.ended, "a row spoke after its end"
        self.tokens.setdefault(key, []).extend(tokens)
        self.pieces.setdefault(key, []).append(piece)
        if finished:
            self.ended.append(key)
        return self.cancel_after is None or len(self.tokens[key]) < self.cancel_after


def spell(ids: list[int]) -> str:
    """A byte-level tokenizer's decode; byte 0 is a special token, which is left out."""
    return bytes(token for token in ids if token).decode("utf-8", errors="replace")


@pytest.fixture
def play() -> Callable[..., Engine]:
    """Runs a request to its end. `drafts`: a drafter that is right for so many tokens; None decodes plainly."""

    def run(
        model: Table, prompts: Sequence[Sequence[int]], drafts: int | None = None, notes: Notes | None = None,
        parts: Parts | None = None, decode: Any = None, clock: Any = None, columns: int | None = None, **request: Any,
    ) -> Engine:  # fmt: skip
        built = Parts(verify=SampleThenMatch()) if parts is None else parts
        if drafts is not None:
            built = Parts(propose=Ahead(model, drafts), claims=drafts + 2).join(built)
        if notes is not None:
            built = built.join(Parts(observe=(notes,)))
        settings = Run(
            Request(prompts=tuple(map(tuple, prompts)), **request), {"target": model}, built,
            decode=decode, listener=notes, columns=columns,
        )  # fmt: skip
        if clock is not None:
            settings.clock = clock
        engine = Engine(settings)
        for _ in engine.run():
            pass
        return engine

    return run


@pytest.fixture
def toys() -> type:
    """The classes above, for tests that build their own."""

    class Toys:
        Scripted, Ahead, Notes = Scripted, Ahead, Notes
        spell = staticmethod(spell)

    return Toys
