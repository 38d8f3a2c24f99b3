"""What the tests of speculative methods share: all outcomes of a random run, text of a table."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest

from treewright.core.roles import Round


class Scripted:
    """Randomness that follows a list of choices and takes the first possible one after it. Every question is a new choice:
    a method may ask a key again for a draft that nobody looked at. `probability` is that of the whole run."""

    def __init__(self, script: list[int]) -> None:
        self.script, self.made, self.open, self.probability = script, [], [], 1.0

    def index(self, weights: np.ndarray, row: Hashable, position: int, stream: int, trial: int = 0) -> int:
        possible = np.flatnonzero(np.asarray(weights) > 0).tolist()
        choice = self.script[len(self.made)] if len(self.made) < len(self.script) else possible[0]
        self.made.append(choice)
        self.open.append(possible[possible.index(choice) + 1 :])
        self.probability *= float(weights[choice] / np.sum(weights))
        return choice

    def accept(self, probability: float, row: Hashable, position: int, trial: int = 0) -> bool:
        return bool(self.index(np.array([1 - probability, probability]), row, position, -1, trial))


def all_outcomes(run: Callable[[Scripted], Any]) -> Iterator[tuple[float, Any]]:
    """Every outcome of `run` with its probability, by going through all choices."""
    scripts: list[list[int]] = [[]]
    while scripts:
        script = scripts.pop()
        chance = Scripted(script)
        result = run(chance)
        yield chance.probability, result
        for place in range(len(script), len(chance.made)):
            scripts += [[*chance.made[:place], other] for other in chance.open[place]]


@pytest.fixture(scope="session")
def outcomes() -> Callable[[Callable[[Scripted], Any]], Iterator[tuple[float, Any]]]:
    return all_outcomes


@pytest.fixture(scope="session")
def greedy_text() -> Callable[..., list[int]]:
    """greedy_text(table, prompt, count): argmax after argmax."""

    def make(table: Any, prompt: Sequence[int], count: int) -> list[int]:
        text = list(prompt)
        for _ in range(count):
            text.append(int(table.logits(text).argmax()))
        return text[len(prompt) :]

    return make


class Watcher:
    """An observer that keeps whatever `look(outcome)` gives, round by round."""

    prompt_top = 0

    def __init__(self, look: Callable[[Any], Any]) -> None:
        self.look, self.seen = look, []

    def read_prompts(self, round: Round, prompts: Sequence[Sequence[int]], top: np.ndarray) -> None: ...

    def observe(self, outcome: Any) -> None:
        self.seen.append(self.look(outcome))


@pytest.fixture(scope="session")
def watcher() -> type[Watcher]:
    return Watcher


TARGET_TOKENS, DRAFT_TOKENS = (b"a", b"b", b"ab"), (b"b", b"ba", b"a")
"""Two vocabularies over two letters whose merges overlap; they share "a" and "b", under other ids."""


@pytest.fixture(scope="session")
def translated() -> Callable[..., dict[str, Any]]:
    """translated(ids): a target table over {a, b, ab} and a draft table over {b, ba, a} that is asked in "shared" or "own" ids.
    Other vocabularies, seeds and inner models may be given."""
    from treewright.models.other_vocabulary import OtherVocabulary
    from treewright.models.spelling import Spelling
    from treewright.models.tables import Table
    from treewright.models.translator import Translator

    def make(
        ids: str, target: Sequence[bytes | None] = TARGET_TOKENS, draft: Sequence[bytes | None] = DRAFT_TOKENS, seed: int = 1,
        **named: Any,
    ) -> dict[str, Any]:  # fmt: skip
        inner = named.pop("inner", None) or Table(len(draft), seed + 50)
        translator = Translator(Spelling(target, **named), Spelling(draft, **named))
        return {"target": Table(len(target), seed), "draft": OtherVocabulary(inner, translator, ids)}

    return make
