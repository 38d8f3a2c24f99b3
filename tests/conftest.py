"""What every test may use: a quiet offline transformers, one thread, one way to run a method through the engine, and rounds
made by hand."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

# Read when torch and transformers are first imported, which no test does before this file.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def pytest_collection_finish() -> None:
    """What is there for the whole run, libraries and thousands of tests, is looked through by no garbage collection again."""
    gc.collect()
    gc.freeze()


class Decoded:
    """What a finished run left: the new tokens of each prompt's first sample, and the engine itself."""

    def __init__(self, engine: Any) -> None:
        self.engine = engine
        self.rows = {key: list(row.tokens) for key, row in engine.finished.items()}
        self.tokens = [self.rows[key] for key in sorted(self.rows) if key[1] == 0]

    def trace(self, prompt: int = 0, sample: int = 0) -> Any:
        return self.engine.traces[prompt, sample]

    def rounds(self, prompt: int = 0) -> int:
        return len(self.trace(prompt).steps)

    def accepted(self) -> int:
        """Draft tokens that became text, over all rows."""
        return sum(len(step.accepted) for trace in self.engine.traces.values() for step in trace.steps)


@pytest.fixture(scope="session")
def decode() -> Callable[..., Decoded]:
    """Runs a method on models that speak the protocol, with no limit on columns unless `columns` says so."""
    from treewright.core.registry import entry
    from treewright.core.request import Request
    from treewright.core.roles import Parts
    from treewright.engine.loop import Engine, Run

    def run(
        model: Any,
        method: str | Parts,
        prompts: Sequence[Sequence[int]],
        options: Mapping[str, Any] | None = None,
        draft: Any = None,
        observers: Sequence[Any] = (),
        columns: int | None = None,
        memories: dict[Any, Any] | None = None,
        randomness: Any = None,
        others: Mapping[str, Any] | None = None,
        **request: Any,
    ) -> Decoded:
        if isinstance(method, Parts):
            parts = method
        else:
            module = entry(method).load()
            parts = module.parts(module.Config(**(options or {})))
        parts = parts.join(Parts(observe=tuple(observers)))
        models = {"target": model} if draft is None else {"target": model, "draft": draft}
        models |= others or {}
        asked = Request(prompts=tuple(tuple(prompt) for prompt in prompts), **request)
        learned = {} if memories is None else memories
        engine = Engine(Run(asked, models, parts, randomness, learned, columns=columns))
        for _ in engine.run():
            pass
        return Decoded(engine)

    return run


@pytest.fixture(scope="session")
def round_of() -> Callable[..., Any]:
    """round_of(texts, claims): a round over rows that hold these tokens, all of them prompt."""
    from treewright.core.memories import Memories
    from treewright.core.randomness import Keyed
    from treewright.core.request import Request
    from treewright.core.roles import Round
    from treewright.core.text import Text

    def make(texts: Sequence[Sequence[int]], claims: int = 64, room: int = 100, vocabulary: int = 1000) -> Any:
        text = Text(max(map(len, texts)) + room)
        text.admit([list(tokens) for tokens in texts], [len(tokens) + room for tokens in texts])
        return Round(
            text=text, request=Request(prompts=tuple(tuple(tokens) for tokens in texts)), sessions={}, randomness=Keyed(0),
            memories=Memories({}), keys=[(row, 0) for row in range(len(texts))], draft_law=lambda logits: logits,
            claims=claims, vocabulary=vocabulary,
        )  # fmt: skip

    return make
