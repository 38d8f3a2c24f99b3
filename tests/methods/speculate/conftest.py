"""What the tests of speculative methods share: all outcomes of a random run, text of a table."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from functools import cache
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


@cache
def deep_model(family: str) -> Any:
    """A model of four layers in float64, wide enough initialised that its text does not loop; "mamba" has states and no layers
    that could run in part."""
    import torch
    import transformers as t

    from treewright.models.loading import load

    small = dict(vocab_size=60, num_hidden_layers=4, eos_token_id=None, bos_token_id=None)
    attending = dict(hidden_size=32, intermediate_size=48, num_attention_heads=4, num_key_value_heads=2, head_dim=8)
    gpt2 = dict(n_embd=32, n_head=4, n_positions=128, tie_word_embeddings=False)
    kinds: dict[str, Callable[[], Any]] = {
        "llama": lambda: t.LlamaForCausalLM(t.LlamaConfig(**small, **attending, initializer_range=0.25)),
        "gpt2": lambda: t.GPT2LMHeadModel(t.GPT2Config(**small, **gpt2, initializer_range=0.25)),
        "mamba": lambda: t.MambaForCausalLM(t.MambaConfig(**small | {"num_hidden_layers": 1}, hidden_size=16, state_size=4)),
    }
    with torch.random.fork_rng():
        torch.manual_seed(5)
        return load(kinds[family]().double())


@pytest.fixture(scope="session")
def deep() -> Callable[[str], Any]:
    return deep_model


@pytest.fixture(scope="session")
def says_what_plain_says(deep: Callable[[str], Any]) -> Callable[..., list[Any]]:
    """Greedy text of a llama and a GPT-2 under a method, alone and in a ragged batch, against plain decoding; gives the results
    of the batches."""
    import treewright

    prompts = [[3, 14, 15, 9, 26], [5], [35, 8, 9, 7, 9, 3, 2, 3, 8]]

    def check(method: str, options: dict[str, Any], models: Any = None, tokens: int = 16) -> list[Any]:
        found = []
        for family in ("llama", "gpt2"):
            settings = dict(max_new_tokens=tokens)
            plain = [result.tokens for result in treewright.generate(deep(family), prompts, "plain", **settings)]
            others = None if models is None else {role: deep(family) for role in models}
            batch = treewright.generate(deep(family), prompts, method, options, models=others, **settings)
            alone = treewright.generate(deep(family), prompts[0], method, options, models=others, **settings)
            assert [result.tokens for result in batch] == plain
            assert alone.tokens == plain[0]
            found += batch
        return found

    return check
