"""Training the bundled encoder-decoder: a small Pegasus that learns operations on lists of words."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers import GenerationConfig, PegasusConfig, PegasusForConditionalGeneration, PreTrainedTokenizerFast

from . import checkpoint
from .checkpoint import Progress
from .export import export_model
from .list_operations import LONGEST, OPERATIONS, SHORTEST, WORDS, draw
from .schedule import Schedule

TOKENIZER = Path(__file__).resolve().parent.parent / "bundled" / "default"


@dataclass(frozen=True)
class ListRecipe:
    """Everything that decides the model, except the budget. `tokens` counts the answers' tokens."""

    name: str
    summary: str
    tokens: int
    hidden_size: int = 128
    layers: int = 2
    heads: int = 4
    intermediate_size: int = 384
    positions: int = 64
    batch: int = 32
    peak_learning_rate: float = 2e-3
    warm_up_tokens: int = 30_000
    decay_share: float = 0.3
    checkpoint_steps: int = 500
    evaluation_examples: int = 400
    seed: int = 20_260

    def build(self, tokenizer: PreTrainedTokenizerFast) -> PegasusForConditionalGeneration:
        """A freshly initialised float32 model; the same weights for the same seed."""
        torch.manual_seed(self.seed)
        end, padding = tokenizer.eos_token_id, tokenizer.pad_token_id
        return PegasusForConditionalGeneration(
            PegasusConfig(
                vocab_size=len(tokenizer), d_model=self.hidden_size, max_position_embeddings=self.positions, dropout=0.0,
                encoder_layers=self.layers, encoder_attention_heads=self.heads, encoder_ffn_dim=self.intermediate_size,
                decoder_layers=self.layers, decoder_attention_heads=self.heads, decoder_ffn_dim=self.intermediate_size,
                eos_token_id=end, decoder_start_token_id=end, pad_token_id=padding, forced_eos_token_id=None,
                scale_embedding=True,
            )
        )  # fmt: skip


def _padded(rows: list[list[int]], fill: int) -> Tensor:
    longest = max(map(len, rows))
    return torch.tensor([row + [fill] * (longest - len(row)) for row in rows])


class ListTrainer:
    """One run: a model, its optimiser and its progress, tied to a run folder."""

    def __init__(self, recipe: ListRecipe, folder: Path, total: int, log: Callable[[str], None]) -> None:
        self.recipe, self.folder, self.log = recipe, folder, log
        self.tokenizer = PreTrainedTokenizerFast.from_pretrained(TOKENIZER)
        self.model = recipe.build(self.tokenizer)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=recipe.peak_learning_rate, weight_decay=0.01, fused=True)
        self.progress = Progress(Schedule.for_budget(total, recipe.warm_up_tokens, recipe.decay_share))

    def resume(self) -> None:
        """Goes on from the folder's checkpoint. Raises CheckpointError where there is none."""
        weights, optimizer, progress = checkpoint.load(self.folder)
        self.model.load_state_dict(weights)
        self.optimizer.load_state_dict(optimizer)
        progress.schedule, self.progress = self.progress.schedule, progress

    def batch(self, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """Prompts [B, P], their mask, and answers [B, A] that end with the end of text, -100 behind."""
        random = Random(f"{self.recipe.seed}:{step}")
        pairs = [draw(random, held_out=False)[1:] for _ in range(self.recipe.batch)]
        prompts, answers = (self.tokenizer([pair[side] for pair in pairs])["input_ids"] for side in (0, 1))
        ids = _padded(prompts, self.tokenizer.pad_token_id)
        mask = _padded([[1] * len(prompt) for prompt in prompts], 0)
        return ids, mask, _padded([[*answer, self.tokenizer.eos_token_id] for answer in answers], -100)

    def step(self) -> float:
        """One optimiser step; its mean loss in nats per token."""
        ids, mask, answers = self.batch(self.progress.step)
        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe.peak_learning_rate * self.progress.schedule.scale(self.progress.tokens)
        begun = functional.pad(answers[:, :-1].clamp(min=0), (1, 0), value=self.model.config.decoder_start_token_id)
        states = self.model.model(input_ids=ids, attention_mask=mask, decoder_input_ids=begun, use_cache=False)[0]
        # The output layer is a third of the work, so it sees the answers' tokens only, not their padding.
        asked = answers >= 0
        loss = functional.cross_entropy(self.model.lm_head(states[asked]), answers[asked])
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.progress.step += 1
        self.progress.tokens += int(asked.sum())
        return float(loss.detach())

    @torch.no_grad()
    def accuracy(self, examples: int) -> dict[str, float]:
        """The share of held-out answers that greedy decoding gives without one wrong token, by operation."""
        self.model.train(False)
        random = Random(self.recipe.seed)
        right: dict[str, list[bool]] = {operation: [] for operation in OPERATIONS}
        model: Any = self.model
        drawn = [draw(random, held_out=True) for _ in range(examples)]
        for start in range(0, examples, 100):
            part = drawn[start : start + 100]
            prompts = self.tokenizer([prompt for _, prompt, _ in part])["input_ids"]
            ids = _padded(prompts, self.tokenizer.pad_token_id)
            mask = _padded([[1] * len(prompt) for prompt in prompts], 0)
            written = model.generate(ids, attention_mask=mask, max_new_tokens=LONGEST + 2, do_sample=False, num_beams=1)
            texts = self.tokenizer.batch_decode(written, skip_special_tokens=True, clean_up_tokenization_spaces=False)
            for (operation, _, answer), text in zip(part, texts, strict=True):
                right[operation].append(text == answer)
        self.model.train()
        return {operation: sum(hits) / max(1, len(hits)) for operation, hits in right.items()}

    def evaluate(self, examples: int) -> None:
        """Notes and logs the held-out accuracy; the checkpoint's `losses` hold it."""
        found = self.accuracy(examples)
        self.progress.losses.append((self.progress.tokens, found))
        shares = "  ".join(f"{operation} {share:.3f}" for operation, share in found.items())
        self.log(f"held-out answers right at {self.progress.tokens} tokens: {shares}")

    def save(self) -> None:
        """Writes a checkpoint."""
        checkpoint.save(self.folder, self.model.state_dict(), self.optimizer.state_dict(), self.progress)

    def run(self) -> None:
        """Trains to the schedule's end; the last act is an evaluation and a checkpoint."""
        progress, clock, losses = self.progress, time.process_time(), []
        self.model.train()
        while progress.tokens < progress.schedule.total:
            losses.append(self.step())
            if progress.step % self.recipe.checkpoint_steps == 0:
                now = time.process_time()
                progress.active_seconds, clock = progress.active_seconds + now - clock, now
                mean = sum(losses) / len(losses)
                done = f"step {progress.step}  tokens {progress.tokens}  loss {mean:.4f}"
                self.log(f"{done}  {progress.active_seconds:.0f} s active")
                losses.clear()
                self.evaluate(self.recipe.evaluation_examples)
                self.save()
        progress.active_seconds += time.process_time() - clock
        self.evaluate(5 * self.recipe.evaluation_examples)
        self.save()

    def export(self, folder: Path) -> None:
        """Writes the model as a folder that `from_pretrained` reads."""
        end = self.tokenizer.eos_token_id
        generation = GenerationConfig(
            bos_token_id=end, eos_token_id=end, decoder_start_token_id=end, pad_token_id=self.tokenizer.pad_token_id
        )
        card = list_card(self.recipe, self.model.num_parameters(), self.progress)
        export_model(self.model, self.tokenizer, folder, {"README.md": card}, generation)


def train_lists(
    recipe: ListRecipe, folder: Path, *, tokens: int | None, resume: bool, export: Path | None, log: Callable[[str], None]
) -> Path:
    """Trains the recipe; the folder of the finished model. Arguments and errors as of `recipes.run`."""
    trainer = ListTrainer(recipe, folder, recipe.tokens if tokens is None else tokens, log)
    log(f"{recipe.name}: {trainer.model.num_parameters()} parameters")
    if resume:
        trainer.resume()
    trainer.run()
    target = export or folder / "export"
    trainer.export(target)
    return target


def list_card(recipe: ListRecipe, parameters: int, progress: Progress) -> str:
    """The model card's markdown text."""
    accuracy = progress.losses[-1][1] if progress.losses else {}
    rows = "\n".join(f"| {operation} | {share:.1%} |" for operation, share in accuracy.items())
    return f"""---
library_name: transformers
pipeline_tag: text2text-generation
language: en
---

# {recipe.name}

{recipe.summary[0].upper()}{recipe.summary[1:]}.

{parameters:,} parameters (Pegasus architecture, tied embeddings; {2 * parameters / 1e6:.1f} MB in bfloat16), trained from scratch
on {progress.tokens:,} answer tokens ({progress.step * recipe.batch:,} lists) with the tokenizer of `default`. AdamW in float32,
warm-up, stable and decay learning rate; {progress.active_seconds / 60:.0f} minutes of one CPU core. The recipe that made it:

    treewright train {recipe.name} --tokens {progress.schedule.total}

## What it is good for, and what not

It is a test bed for decoding encoder-decoder models: the answer is decided by the prompt, and most of it can be looked up
there. It knows {len(WORDS)} words and four operations on lists of {SHORTEST} to {LONGEST} of them, and nothing else:

    copy: cat dog sun          cat dog sun
    reverse: cat dog sun       sun dog cat
    sort: dog cat sun          cat dog sun
    marked: cat * dog * sun    dog sun

An answer begins with a space. Other words, longer lists and other sentences give nonsense.

## Training data

treewright.train.list_operations, this project's; one list in a hundred, by a hash of its text, is held out.

## Held-out accuracy

Answers that greedy decoding gives without one wrong token, on {5 * recipe.evaluation_examples:,} held-out lists, measured
before rounding to bfloat16:

| operation | right |
|---|---|
{rows}
"""
