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


@pytest.fixture(scope="session")
def tree_case() -> Callable[..., Any]:
    """tree_case(parts, law, widths, ...): a case over three ragged prompts whose drafts are trees drawn from the role `draft`,
    judged by `parts().accept` where there is one."""
    from treewright.core.request import Request, Sampling
    from treewright.core.roles import Parts
    from treewright.models.tables import Table
    from treewright.parts.verify.rejection import Rejection
    from treewright.testing.drafters import TreeDrafter
    from treewright.testing.enumerate import Case

    def make(
        parts: Callable[[], Any], law: str = "delta", widths: tuple[int, ...] = (2, 1), temperature: float = 1.0, row: int = 0,
        tokens: int = 3, vocabulary: int = 4,
    ) -> Any:  # fmt: skip
        target = Table(vocabulary, 3, sharpness=1.3)
        models = {"target": target, "draft": Table(vocabulary, 7, like=target, likeness=0.6)}

        def joined() -> Parts:
            return Parts(propose=TreeDrafter(law, widths), verify=Rejection(), claims=16).join(parts())

        prompts = ((1,), (0, 2, 1), (2, 1))
        return Case(Request(prompts, max_new_tokens=tokens, sampling=Sampling(temperature)), models, joined, row)

    return make
