"""Tiny random transformers models of many families, wide enough initialised that their greedy text does not loop."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import Any

import numpy as np
import pytest

from treewright.core.claims import ABSENT, Forest
from treewright.core.session import Opening
from treewright.core.text import Text

VOCABULARY = 97
CONTEXT = 160
LONG_CONTEXT = 1024
WINDOW = 6


def recipe(family: str) -> tuple[Any, Any, int]:
    """The model class, its configuration and a seed."""
    import transformers as t

    width = dict(vocab_size=VOCABULARY, hidden_size=32, num_attention_heads=4, max_position_embeddings=LONG_CONTEXT)
    grouped = dict(intermediate_size=48, num_key_value_heads=2)
    gemma = dict(head_dim=16, sliding_window=WINDOW, tie_word_embeddings=False, num_hidden_layers=4, initializer_range=0.2)
    layers = ["sliding_attention", "full_attention"] * 2
    small = dict(vocab_size=VOCABULARY, n_head=4, n_layer=2)
    # Gemma's embeddings are scaled up, so with tied weights every token would predict itself; OPT, GPT-2 and Bloom are
    # tied too and need a wider spread. Seeds are chosen so that texts repeat a little: drafters must have something to do.
    table: dict[str, Callable[[], tuple[Any, Any, int]]] = {
        "llama": lambda: (t.LlamaForCausalLM, t.LlamaConfig(**width, **grouped, num_hidden_layers=2, initializer_range=0.1), 2),
        "qwen3": lambda: (
            t.Qwen3ForCausalLM, t.Qwen3Config(**width, **grouped, num_hidden_layers=2, head_dim=16, initializer_range=0.2), 2
        ),
        "gpt2": lambda: (t.GPT2LMHeadModel, t.GPT2Config(**small, n_embd=32, n_positions=CONTEXT, initializer_range=0.2), 3),
        "gemma3": lambda: (t.Gemma3ForCausalLM, t.Gemma3TextConfig(**width, **grouped, **gemma, layer_types=layers), 1),
        "gemma2": lambda: (t.Gemma2ForCausalLM, t.Gemma2Config(**width, **grouped, **gemma), 1),
        "mistral": lambda: (
            t.MistralForCausalLM,
            t.MistralConfig(**width, **grouped, num_hidden_layers=2, sliding_window=WINDOW, initializer_range=0.1), 3,
        ),
        "phi3": lambda: (
            t.Phi3ForCausalLM, t.Phi3Config(**width, **grouped, num_hidden_layers=2, pad_token_id=0, initializer_range=0.1), 2
        ),
        "opt": lambda: (
            t.OPTForCausalLM,
            t.OPTConfig(**width, word_embed_proj_dim=32, ffn_dim=48, num_hidden_layers=2, init_std=0.4), 0,
        ),
        "mixtral": lambda: (
            t.MixtralForCausalLM,
            t.MixtralConfig(**width, **grouped, num_hidden_layers=2, num_local_experts=4, initializer_range=0.1), 1,
        ),
        "gpt_oss": lambda: (
            t.GptOssForCausalLM,
            t.GptOssConfig(
                **width, **grouped, num_hidden_layers=2, num_local_experts=4, head_dim=16, sliding_window=WINDOW,
                initializer_range=0.1,
            ), 1,
        ),
        "bloom": lambda: (
            t.BloomForCausalLM, t.BloomConfig(**small, hidden_size=32, tie_word_embeddings=False, initializer_range=0.4), 0
        ),
    }  # fmt: skip
    return table[family]() if family in table else stateful_recipe(family)


def stateful_recipe(family: str) -> tuple[Any, Any, int]:
    """The same for models that keep states: pure ones, and hybrids that attend in some layers or in all."""
    import transformers as t

    small = dict(vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=2, initializer_range=0.2)
    attending = dict(
        num_attention_heads=4, num_key_value_heads=2, intermediate_size=48, max_position_embeddings=LONG_CONTEXT,
    )  # fmt: skip
    ssd = dict(mamba_n_heads=8, mamba_d_head=8, mamba_d_state=8, mamba_n_groups=1, mamba_chunk_size=16)
    delta = dict(linear_num_value_heads=4, linear_num_key_heads=2, linear_key_head_dim=8, linear_value_head_dim=8)
    experts = dict(num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16, shared_expert_intermediate_size=16)
    table: dict[str, Callable[[], tuple[Any, Any, int]]] = {
        "mamba": lambda: (t.MambaForCausalLM, t.MambaConfig(**small, state_size=8, tie_word_embeddings=False), 0),
        "mamba2": lambda: (
            t.Mamba2ForCausalLM,
            t.Mamba2Config(
                **small | {"initializer_range": 0.1}, state_size=8, num_heads=8, head_dim=8, n_groups=1, chunk_size=16
            ), 0,
        ),
        "qwen3_next": lambda: (
            t.Qwen3NextForCausalLM,
            t.Qwen3NextConfig(
                **small, **attending, **delta, **experts, head_dim=16, layer_types=["linear_attention", "full_attention"]
            ), 0,
        ),
        "jamba": lambda: (
            t.JambaForCausalLM,
            t.JambaConfig(
                **small, **attending, attn_layer_period=2, attn_layer_offset=1, num_experts=2, mamba_d_state=8, mamba_dt_rank=4
            ), 0,
        ),
        "falcon_h1": lambda: (t.FalconH1ForCausalLM, t.FalconH1Config(**small, **attending, **ssd, mamba_d_ssm=64), 0),
        "nemotron_h": lambda: (
            t.NemotronHForCausalLM,
            t.NemotronHConfig(
                **small, **attending, layers_block_type=["mamba", "attention"], mamba_num_heads=8,
                mamba_head_dim=8, ssm_state_size=8, n_groups=1, chunk_size=16, head_dim=8,
            ), 0,
        ),
        "rwkv": lambda: (
            t.RwkvForCausalLM,
            t.RwkvConfig(vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=2, context_length=LONG_CONTEXT), 0,
        ),
    }  # fmt: skip
    return table[family]()


@cache
def build(family: str, dtype: str, attention: str | None = None) -> Any:
    """A transformers model; the same weights whatever the dtype and the attention implementation."""
    import torch

    kind, config, seed = recipe(family)
    if attention is not None:
        config._attn_implementation = attention
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = kind(config).eval().to(getattr(torch, dtype))
    model.generation_config.eos_token_id = None
    return model


@cache
def perturbed(family: str, dtype: str) -> Any:
    """A draft model that agrees with the target now and then: its weights with noise."""
    import torch

    model = copy.deepcopy(build(family, dtype))
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for weight in model.parameters():
            noise = torch.randn(weight.shape, generator=generator, dtype=torch.float64).to(weight.dtype)
            weight += 0.15 * weight.std(correction=0) * noise
    return model


@cache
def behind_protocol(family: str, dtype: str, attention: str | None = None, draft: bool = False) -> Any:
    from treewright.models.causal import CausalModel

    return CausalModel(perturbed(family, dtype) if draft else build(family, dtype, attention))


@cache
def greedy(family: str, dtype: str, prompt: tuple[int, ...], count: int) -> list[int]:
    """What transformers itself generates at temperature 0, one prompt at a time."""
    import torch

    model = build(family, dtype)
    if dtype == "float64" and model._can_set_experts_implementation():
        model.set_experts_implementation("eager")
    with torch.no_grad():
        out = model.generate(
            torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            max_new_tokens=count, do_sample=False, pad_token_id=0,
        )  # fmt: skip
    return out[0, len(prompt) :].tolist()


@pytest.fixture(scope="session")
def network() -> Callable[..., Any]:
    """network(family, dtype, attention=None): the transformers model."""
    return build


@pytest.fixture(scope="session")
def causal() -> Callable[..., Any]:
    """causal(family, dtype, attention=None, draft=False): the same behind the protocol."""
    return behind_protocol


@pytest.fixture(scope="session")
def reference() -> Callable[[str, str, Sequence[Sequence[int]], int], list[list[int]]]:
    """reference(family, dtype, prompts, count): transformers' greedy continuations."""
    return lambda family, dtype, prompts, count: [greedy(family, dtype, tuple(prompt), count) for prompt in prompts]


@pytest.fixture(scope="session")
def ragged() -> list[tuple[int, ...]]:
    """Eight prompts of 1 to 20 tokens, one with a repetition in it."""
    random = np.random.default_rng(0)
    prompts = [tuple(random.integers(1, VOCABULARY, size=size).tolist()) for size in (1, 3, 5, 9, 2, 14, 7)]
    return [*prompts, (*prompts[3], 5, *prompts[3], 6)]


def without_memory(model: Any, tokens: Sequence[int]) -> np.ndarray:
    """Logits after `tokens`: a table's own, or a transformers forward without cache and without a mask of ours."""
    if hasattr(model, "logits"):
        return model.logits(tokens)
    import torch

    with torch.no_grad():
        return model.model(torch.tensor([list(tokens)]), use_cache=False).logits[0, -1].numpy()


def all_without_memory(model: Any, texts: Iterable[tuple[int, ...]]) -> dict[tuple[int, ...], np.ndarray]:
    """The same for many texts: one forward for all that are equally long, so that there is no padding."""
    if hasattr(model, "logits"):
        return {text: model.logits(text) for text in texts}
    import torch

    found = {}
    for _, alike in itertools.groupby(sorted(texts, key=len), key=len):
        batch = list(alike)
        with torch.no_grad():
            logits = model.model(torch.tensor(batch), use_cache=False).logits[:, -1]
        found |= dict(zip(batch, logits.numpy(), strict=True))
    return found


class Twin:
    """A session beside the plain lists of tokens that it should answer for."""

    def __init__(self, model, prompts, seed=0, hidden=False, prompt_top=0, own=None, limit=120, layers=False) -> None:
        self.model, self.random, self.limit = model, np.random.default_rng(seed), limit
        self.vocabulary = model.capabilities.vocabulary
        self.calls: list[tuple[str, int, int]] = []
        self.text = Text(limit)
        opening = Opening(40, len(prompts), limit, hidden, prompt_top, layers)
        self.session = model.open(self.text, opening, lambda kind, rows, columns, *_: self.calls.append((kind, rows, columns)))
        self.texts: list[list[int]] = []
        self.admit(prompts, own)

    def admit(self, prompts, own=None) -> None:
        self.text.admit([list(prompt) for prompt in prompts], [self.limit] * len(prompts))
        self.session.admit(self.text, [list(prompt) for prompt in own or prompts])
        self.texts += [list(prompt) for prompt in own or prompts]

    def token(self) -> int:
        return int(self.random.integers(1, self.vocabulary))

    def append(self, row: int, tokens: list[int]) -> None:
        self.text.append(row, tokens)
        self.texts[row] += tokens

    def select(self, rows: list[int]) -> None:
        self.text.select(rows)
        self.session.select(rows)
        self.texts = [list(self.texts[row]) for row in rows]

    def forest(self) -> Forest:
        return Forest(self.text.frontier())

    def grow(self, forest: Forest, count: int, shared: bool) -> None:
        """`count` claims with random parents among all claims so far."""
        rows, columns = forest.rows, forest.columns
        highest = np.arange(columns, columns + count)
        token = self.random.integers(1, self.vocabulary, size=(rows, count))
        if shared:
            forest.grow(self.random.integers(0, highest).tolist(), token)
        else:
            forest.grow(self.random.integers(0, highest, size=(rows, count)), token)

    def error(self, forest: Forest, answers) -> float:
        """The largest difference between an answer and a plain forward over the row's text and the claim's path."""
        assert answers.logits.shape[:2] == forest.token.shape
        present = np.argwhere(forest.token != ABSENT).tolist()
        paths = {(row, column): (*self.texts[row], *forest.path_tokens(row, column)) for row, column in present}
        expected, worst = all_without_memory(self.model, set(paths.values())), 0.0
        for (row, column), path in paths.items():
            difference = np.abs(answers.row(row, column) - expected[path]).max()
            worst = max(worst, difference / max(1.0, np.abs(expected[path]).max()))
        return float(worst)

    def round(self, calls: int = 1, shared: bool = True, extra: int = 1) -> float:
        """Grows and scores a tree in `calls` steps, commits a random path and `extra` tokens; the largest error."""
        forest = self.forest()
        for _ in range(calls):
            self.grow(forest, int(self.random.integers(1, 7)), shared)
            answers = self.session.score(forest)
        worst = self.error(forest, answers)
        self.commit(forest, extra)
        return worst

    def commit(self, forest: Forest, extra: int) -> None:
        paths = [forest.shape.path(row, int(self.random.integers(0, forest.columns))) for row in range(forest.rows)]
        for row, path in enumerate(paths):
            self.append(row, [int(forest.token[row, column]) for column in path] + [self.token() for _ in range(extra)])
        self.session.commit(paths)


@pytest.fixture(scope="session")
def plain() -> Callable[[Any, Sequence[int]], np.ndarray]:
    return without_memory


@pytest.fixture(scope="session")
def twin_of() -> type[Twin]:
    return Twin
