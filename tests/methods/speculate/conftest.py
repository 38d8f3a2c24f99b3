"""What the tests of speculative methods share: all outcomes of a random run, text of a table, mistakes to be seen."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from functools import cache
from typing import Any

import numpy as np
import pytest

from treewright.core.claims import ABSENT, Forest, Law
from treewright.core.request import Budget, Sampling
from treewright.core.roles import Parts, Round
from treewright.parts.verify.rejection import Rejection
from treewright.testing import laws


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


def softmax_of(logits: np.ndarray) -> np.ndarray:
    weights = np.exp(logits - logits.max())
    return weights / weights.sum()


@pytest.fixture(scope="session")
def softmax() -> Callable[[np.ndarray], np.ndarray]:
    return softmax_of


@pytest.fixture(scope="session")
def off_the_law(decode) -> Callable[..., float]:
    """off_the_law(method, options, target, draft, others): total variation of the law of the first two tokens from the
    target's, over all outcomes, at temperature 1."""

    def make(method: str | Parts, options: Any, target: Any, draft: Any, others: Any = None, room: int = 5) -> float:
        law: dict[tuple[int, ...], float] = {}

        def run(chance: Scripted) -> tuple[int, ...]:
            decoded = decode(
                target, method, [(1, 0)], options, draft, randomness=chance, others=others, max_new_tokens=room,
                budget=Budget(tokens=2), sampling=Sampling(temperature=1.0),
            )  # fmt: skip
            return tuple(decoded.tokens[0][:2])

        for probability, text in all_outcomes(run):
            law[text] = law.get(text, 0.0) + probability
        first = softmax_of(target.logits((1, 0)))
        expected = {
            (x, y): first[x] * softmax_of(target.logits((1, 0, x)))[y]
            for x in range(target.vocabulary) for y in range(target.vocabulary)
        }  # fmt: skip
        assert sum(law.values()) == pytest.approx(1, abs=1e-9)
        return laws.total_variation(law, expected)

    return make


class Spoiled:
    """A proposer whose drafts are said to come from another law: that of a flatter draft, or a law where there was none."""

    def __init__(self, proposer: Any) -> None:
        self._proposer = proposer

    def propose(self, round: Round) -> None:
        round.let_propose(self._proposer)
        forest = round.forest
        if forest.q:
            forest.q = {column: np.sqrt(law) / np.sqrt(law).sum(-1, keepdims=True).clip(1e-9) for column, law in forest.q.items()}
            return
        forest.law = [Law.SWOR] * forest.columns
        for column in range(forest.columns):
            forest.q[column] = np.full((forest.rows, round.vocabulary), 1 / round.vocabulary)


@pytest.fixture(scope="session")
def spoiled() -> Callable[[Parts], Parts]:
    """The same parts with a wrong law of the drafts, verified by exact rejection."""

    def make(parts: Parts) -> Parts:
        parts.propose, parts.verify, parts.probabilities = Spoiled(parts.propose), Rejection(), True
        return parts

    return make


@pytest.fixture(scope="session")
def paths_of() -> Callable[..., list[tuple[int, ...]]]:
    """paths_of(forest, row): the paths of a row's claims in column order."""

    def make(forest: Forest, row: int = 0) -> list[tuple[int, ...]]:
        present = [column for column in range(1, forest.columns) if forest.token[row, column] != ABSENT]
        return [tuple(forest.path_tokens(row, column)) for column in present]

    return make


@pytest.fixture(scope="session")
def first_forest(decode, watcher) -> Callable[..., Forest]:
    """first_forest(method, options, target, draft, prompts, ...): what is claimed in the first round."""

    def make(method: Any, options: Any, target: Any, draft: Any, prompts: Any, temperature: float = 0.0, **how: Any) -> Forest:
        forests = watcher(lambda outcome: outcome.round.forest)
        settings = {"max_new_tokens": 20, "budget": Budget(model_calls=1)} | how
        decode(target, method, prompts, options, draft, [forests], sampling=Sampling(temperature=temperature), **settings)
        return forests.seen[0]

    return make


@pytest.fixture(scope="session")
def check_rows(first_forest, paths_of) -> Callable[..., None]:
    """Asserts that a row's claims are the same alone, and beside neighbours of whichever kind, greedy and drawn."""

    def check(method: str, options: Any, target: Any, draft: Any, others: Any = None) -> None:
        for temperature in (0.0, 1.0):
            alone, *company = (
                paths_of(first_forest(method, options, target, draft, prompts, temperature, others=others))
                for prompts in ([(1, 0, 2)], [(1, 0, 2), (3,), (2, 2, 1, 0, 1)], [(1, 0, 2), (0, 1)])
            )
            assert alone and company == [alone, alone]

    return check


@pytest.fixture(scope="session")
def llamas() -> list[Any]:
    """A target and two more random Llamas of one vocabulary, in float64; the second is a copy of the first, slightly moved, so
    that its drafts are taken now and then."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from treewright.models.loading import load

    config = LlamaConfig(
        vocab_size=48, hidden_size=32, intermediate_size=48, num_attention_heads=4, num_key_value_heads=2, head_dim=8,
        num_hidden_layers=2, max_position_embeddings=128, initializer_range=0.4, eos_token_id=None,
    )  # fmt: skip
    torch.manual_seed(3)
    target, like, other = (LlamaForCausalLM(config).double() for _ in range(3))
    like.load_state_dict(target.state_dict())
    with torch.no_grad():
        for weight in like.parameters():
            weight += 0.02 * torch.randn_like(weight)
    return [load(model) for model in (target, like, other)]


@pytest.fixture(scope="session")
def check_on_llamas(llamas) -> Callable[..., None]:
    """Asserts that a method writes the target's greedy text on real models, one prompt at a time and three at once, with drafts
    that are accepted."""
    from treewright.api import generate

    def check(method: str, options: Any, roles: Sequence[str] = ("draft",)) -> None:
        target, *others = llamas
        prompts = [[5, 9, 11], [7], [1, 2, 3, 4, 5, 6, 40]]
        how = dict(max_new_tokens=16, ignore_eos=True)
        named = dict(zip(roles, others, strict=False))
        expected = [result.tokens for result in generate(target, prompts, "plain", **how)]
        together = generate(target, prompts, method, options=options, models=named, **how)
        alone = [generate(target, [prompt], method, options=options, models=named, **how)[0] for prompt in prompts]
        assert [result.tokens for result in together] == expected
        assert [result.tokens for result in alone] == expected
        assert sum(len(step.accepted) for result in together for step in result.trace.steps) > 5

    return check


@pytest.fixture(scope="session")
def drafted_columns(llamas) -> Callable[..., list[int]]:
    """drafted_columns(method, options): columns of each draft call, one prompt, with the target as its own draft."""
    from treewright.api import generate

    def make(method: str, options: Any) -> list[int]:
        result = generate(llamas[0], [[5, 9, 11]], method, options, {"draft": llamas[0]}, max_new_tokens=16, ignore_eos=True)[0]
        return [call.columns for call in result.trace.calls if call.kind == "score" and call.model == "draft"]

    return make


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


@pytest.fixture
def sure() -> Callable[[int], Any]:
    """A table that gives one token all but some hundred-thousandths, so many places behind the one that `sure(0)` gives."""
    from treewright.models.tables import Table

    class Sure(Table):
        def __init__(self, shift: int) -> None:
            super().__init__(6, seed=8)
            self.shift = shift

        def _make_row(self, context: tuple[int, ...]) -> np.ndarray:
            best = super()._make_row(context).argmax()
            return 12.0 * (np.arange(6) == (best + self.shift) % 6)

    return Sure
