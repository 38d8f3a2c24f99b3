"""The recipes of the bundled models, by name, and the one function that runs them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from . import checkpoint, distil, language_model, masked_model
from .encoder_decoder import ListRecipe, train_lists
from .export import export_model, load_exported
from .model_card import causal, masked, model_card
from .token_store import TokenStore, Window, prepare_tokenizer, prepare_tokens

AnyTrainer = language_model.Trainer[LlamaForCausalLM] | masked_model.MaskedTrainer
MASK = "<|mask|>"
DEFAULT_OUT = Path.home() / ".cache" / "treewright" / "train"

MIXTURE: dict[str, float] = {
    "tinystories": 0.17,
    "picture_stories": 0.04,
    "fairytales": 0.07,
    "young_readers": 0.12,
    "python_library": 0.21,
    "python_tests": 0.09,
    "wikisql": 0.06,
    "advising": 0.02,
    "synthetic_sql": 0.07,
    "synthetic_json": 0.10,
    "gsm8k": 0.02,
    "commongen": 0.01,
    "e2e": 0.01,
    "viggo": 0.01,
}


@dataclass(frozen=True)
class Architecture:
    """The shape of a Llama model with tied embeddings."""

    hidden_size: int
    layers: int
    heads: int
    intermediate_size: int
    vocabulary_size: int = 4096
    max_positions: int = 2048

    def build(self, seed: int) -> LlamaForCausalLM:
        """A freshly initialised float32 model; the same weights for the same seed."""
        torch.manual_seed(seed)
        return LlamaForCausalLM(
            LlamaConfig(
                vocab_size=self.vocabulary_size,
                hidden_size=self.hidden_size,
                num_hidden_layers=self.layers,
                num_attention_heads=self.heads,
                num_key_value_heads=self.heads,
                intermediate_size=self.intermediate_size,
                max_position_embeddings=self.max_positions,
                tie_word_embeddings=True,
                bos_token_id=0,
                eos_token_id=0,
                pad_token_id=1,
            )
        )


@dataclass(frozen=True)
class Bidirectional:
    """The shape of a masked model: these layers of the recipe's teacher, without the causal mask."""

    layers: tuple[int, ...]


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a bundled model, except the data folder and the token budget.

    `teacher`: the bundled model that a draft is distilled from, or whose weights a masked model begins with.
    """

    name: str
    summary: str
    architecture: Architecture | Bidirectional
    tokens: int
    optimization: language_model.Optimization
    mixture: dict[str, float]
    teacher: str | None = None
    seed: int = 20_250


RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            name="default",
            summary="a 6 M parameter model that continues simple stories, Python, SQL and JSON",
            architecture=Architecture(256, 6, 4, 768),
            tokens=40_000_000,
            optimization=language_model.Optimization(peak_learning_rate=3e-3),
            mixture=MIXTURE,
        ),
        Recipe(
            name="default-draft",
            summary="a 1 M parameter draft of 'default' with the same tokenizer",
            architecture=Architecture(128, 2, 4, 384),
            tokens=6_000_000,
            optimization=language_model.Optimization(peak_learning_rate=4e-3, window=Window(16, 512), micro_sequences=4),
            mixture=MIXTURE,
            teacher="default",
        ),
        Recipe(
            name="default-masked",
            summary="a 4 M parameter masked diffusion model of list operations, simple stories and Python",
            architecture=Bidirectional(layers=(0, 1, 4, 5)),
            tokens=12_500_000,
            optimization=language_model.Optimization(
                peak_learning_rate=1e-3, window=Window(76, 64), long_every=0, warm_up_tokens=1_000_000, decay_share=0.2
            ),
            mixture={"tinystories": 0.5, "picture_stories": 0.1, "python_library": 0.4},
            teacher="default",
        ),
    )
}


LIST_RECIPES: dict[str, ListRecipe] = {
    recipe.name: recipe
    for recipe in (
        ListRecipe(
            name="default-seq2seq",
            summary="a 1.3 M parameter encoder-decoder that copies, reverses, sorts and picks words of a list",
            tokens=2_000_000,
        ),
    )
}


def find_recipe(name: str) -> Recipe | ListRecipe:
    """The recipe called `name`.

    Raises:
        ValueError: there is no such recipe.
    """
    known = RECIPES | LIST_RECIPES
    if name not in known:
        raise ValueError(f"recipe {name!r} does not exist; choose one of {', '.join(sorted(known))}")
    return known[name]


def run(
    recipe: str | Recipe | ListRecipe,
    data: Path | None = None,
    out: Path | None = None,
    *,
    tokens: int | None = None,
    resume: bool = False,
    export: Path | None = None,
    teacher: Path | None = None,
    preview: Path | None = None,
    log: Callable[[str], None] = print,
) -> Path:
    """Train a recipe (or the one of that name) on the corpora under `data`; returns the export.

    Recipes whose data is drawn as they go (`default-seq2seq`) take no `data`, `teacher` or `preview`.

    `out` is the run folder (default `~/.cache/treewright/train/<name>`), `export` the folder of
    the finished model (default `<out>/export`).  `tokens` replaces the recipe's budget, also of a
    resumed run.  `teacher` is the exported model that a draft learns from, or whose weights a masked
    model begins with, and whose tokenizer it takes (default: the export in the teacher's run folder
    beside `out`).  `preview` receives early
    exports.  A file `finish` in the run folder begins the decay at once.  Two cores train about
    9,000 tokens of `default` per second.

    Raises:
        ValueError: the recipe, the budget or the teacher does not exist or does not fit.
        CorpusError: a corpus file is missing or malformed.
        CheckpointError: `resume` without a checkpoint, or a checkpoint without `resume`.
    """
    recipe = find_recipe(recipe) if isinstance(recipe, str) else recipe
    folder = out or DEFAULT_OUT / recipe.name
    if checkpoint.exists(folder) and not resume:
        raise checkpoint.CheckpointError(
            f"run folder {str(folder)!r} already holds a checkpoint; resume it or choose another folder"
        )
    folder.mkdir(parents=True, exist_ok=True)
    if isinstance(recipe, ListRecipe):
        if data or teacher or preview:
            raise ValueError(f"recipe {recipe.name!r} takes no data, teacher or preview: it makes its own lists; leave them out")
        return train_lists(recipe, folder, tokens=tokens, resume=resume, export=export, log=log)
    if data is None:
        raise ValueError(f"recipe {recipe.name!r} needs the folder that holds the corpora; give data (--data DIR)")
    total = recipe.tokens if tokens is None else tokens
    begin = _begin_masked if isinstance(recipe.architecture, Bidirectional) else _begin_causal
    trainer, tokenizer = begin(recipe, data, folder, teacher, total, log)
    if resume:
        trainer.resume(tokens)
    trainer.run(lambda: _export(recipe, trainer, tokenizer, preview) if preview else None)
    target = export or folder / "export"
    _export(recipe, trainer, tokenizer, target)
    return target


def _begin_causal(
    recipe: Recipe, data: Path, folder: Path, teacher: Path | None, total: int, log: Callable[[str], None]
) -> tuple[AnyTrainer, PreTrainedTokenizerFast]:
    shape = recipe.architecture
    assert isinstance(shape, Architecture)
    objective: language_model.Objective = language_model.cross_entropy
    if recipe.teacher is None:
        tokenizer = prepare_tokenizer(folder / "tokenizer", data, recipe.mixture, shape.vocabulary_size, shape.max_positions)
    else:
        source = teacher or folder.parent / recipe.teacher / "export"
        target, tokenizer = load_exported(source)
        if target.config.vocab_size != shape.vocabulary_size:
            raise ValueError(
                f"teacher {str(source)!r} has {target.config.vocab_size} tokens, but recipe "
                f"{recipe.name!r} is for {shape.vocabulary_size}; give a teacher of that vocabulary"
            )
        objective = distil.Distillation(target.requires_grad_(False))
    store = _prepare_store(recipe, data, folder, tokenizer)
    model = shape.build(recipe.seed)
    _log_sizes(recipe, model.num_parameters(), store, log)
    trainer = language_model.Trainer(
        model, store, recipe.optimization, folder, seed=recipe.seed, total=total, objective=objective, log=log
    )
    return trainer, tokenizer


def _begin_masked(
    recipe: Recipe, data: Path, folder: Path, teacher: Path | None, total: int, log: Callable[[str], None]
) -> tuple[AnyTrainer, PreTrainedTokenizerFast]:
    shape = recipe.architecture
    assert isinstance(shape, Bidirectional) and recipe.teacher is not None, recipe.name
    start, tokenizer = load_exported(teacher or folder.parent / recipe.teacher / "export")
    tokenizer.add_special_tokens({"mask_token": MASK})
    store = _prepare_store(recipe, data, folder, tokenizer)
    model = masked_model.bidirectional(start, shape.layers, tokenizer.mask_token_id)
    tokenizer.model_max_length = model.config.max_position_embeddings
    _log_sizes(recipe, model.num_parameters(), store, log)
    trainer = masked_model.MaskedTrainer(
        model, tokenizer, store, recipe.optimization, folder, seed=recipe.seed, total=total, log=log
    )
    return trainer, tokenizer


def _prepare_store(recipe: Recipe, data: Path, folder: Path, tokenizer: PreTrainedTokenizerFast) -> TokenStore:
    prepare_tokens(folder / "tokens", data, recipe.mixture, tokenizer)
    return TokenStore(folder / "tokens", recipe.mixture, recipe.optimization.longest)


def _log_sizes(recipe: Recipe, parameters: int, store: TokenStore, log: Callable[[str], None]) -> None:
    log(f"{recipe.name}: {parameters} parameters")
    log(f"training tokens by source: {store.sizes()}")


def _export(recipe: Recipe, trainer: AnyTrainer, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    if isinstance(recipe.architecture, Bidirectional):
        assert recipe.teacher is not None, recipe.name
        making = masked(recipe.teacher, masked_model.TEXT_SHARE)
    else:
        making = causal(recipe.teacher)
    size = trainer.model.num_parameters()
    card = model_card(recipe.name, recipe.summary, size, recipe.mixture, trainer.progress, making)
    export_model(trainer.model, tokenizer, folder, {"README.md": card})
