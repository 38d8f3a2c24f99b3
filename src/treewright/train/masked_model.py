"""Training a masked diffusion model: hide some slots of an answer, predict them from everything else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from random import Random

import numpy
import torch
from torch import Tensor
from torch.nn import functional
from transformers import EuroBertConfig, EuroBertForMaskedLM, LlamaForCausalLM, PreTrainedTokenizerFast

from . import list_tasks
from .language_model import Optimization, Trainer
from .token_store import TokenStore, Window

LIST_ROWS, LIST_WIDTH, LIST_CANVAS = 128, 32, 12
TEXT = Window(12, 63)
TEXT_SHARE = 0.15


@dataclass(frozen=True)
class Hidden:
    """Rows with hidden slots. ids, attended [R, T]; slots, weights, tokens [R, S]: which slots the loss looks at, how much
    each counts (0: not hidden), and what was hidden there."""

    ids: Tensor
    attended: Tensor
    slots: Tensor
    weights: Tensor
    tokens: Tensor


def hide(ids: Tensor, answer: Tensor, attended: Tensor, width: int, mask: int, generator: numpy.random.Generator) -> Hidden:
    """Hides a uniform number of the slots of each row's answer, uniformly chosen.

    ids [R, T]; answer [R, T] bool, at most `width` slots, one after another. Weights are 1 / (hidden slots), which has
    the mean of the bound with t ~ U(0, 1) and weights 1 / t (over the answer's length), with far less variance.
    """
    rows, length = ids.shape
    sizes = answer.sum(1)
    count = torch.from_numpy(generator.integers(1, sizes.numpy() + 1))
    noise = torch.from_numpy(generator.random((rows, length))).masked_fill(~answer, 2.0)
    chosen = noise.argsort(1).argsort(1) < count[:, None]
    slots = (answer.int().argmax(1)[:, None] + torch.arange(width)).clamp(max=length - 1)
    inside = torch.arange(width) < sizes[:, None]
    weights = (chosen.gather(1, slots) & inside).float() / count[:, None]
    return Hidden(ids.masked_fill(chosen, mask), attended, slots, weights, ids.gather(1, slots))


def hidden_cross_entropy(model: EuroBertForMaskedLM, rows: Hidden) -> Tensor:
    """Mean over rows of the mean cross-entropy (nats) of the hidden slots; the objective of a masked model."""
    with torch.autocast("cpu", torch.bfloat16):
        states = model.model(input_ids=rows.ids, attention_mask=rows.attended[:, None, None, :]).last_hidden_state
        index = rows.slots[:, :, None].expand(-1, -1, states.shape[-1])
        logits = model.lm_head(states.gather(1, index))
    losses = functional.cross_entropy(logits.flatten(0, 1).float(), rows.tokens.flatten(), reduction="none")
    return (losses * rows.weights.flatten()).sum() / len(rows.ids)


def bidirectional(start: LlamaForCausalLM, layers: tuple[int, ...], mask_token: int) -> EuroBertForMaskedLM:
    """A masked model with the weights of some layers of a causal one, and one more token for the mask.

    EuroBERT's blocks are Llama's without the causal mask, so weights carry over by name.
    """
    config = start.config
    model = EuroBertForMaskedLM(
        EuroBertConfig(
            vocab_size=mask_token + 1, hidden_size=config.hidden_size, intermediate_size=config.intermediate_size,
            num_hidden_layers=len(layers), num_attention_heads=config.num_attention_heads,
            num_key_value_heads=config.num_key_value_heads, max_position_embeddings=512,
            rms_norm_eps=config.rms_norm_eps, rope_parameters=config.rope_parameters, tie_word_embeddings=True,
            bos_token_id=config.bos_token_id, eos_token_id=config.eos_token_id, pad_token_id=config.pad_token_id,
            mask_token_id=mask_token,
        )
    )  # fmt: skip
    known = start.state_dict()
    weights = {name: value for name, value in known.items() if ".layers." not in name and "rotary" not in name}
    for to, source in enumerate(layers):
        prefix = f"model.layers.{source}."
        weights |= {
            f"model.layers.{to}.{name.removeprefix(prefix)}": value
            for name, value in known.items() if name.startswith(prefix)
        }  # fmt: skip
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        table = known["model.embed_tokens.weight"]
        weights[name] = torch.cat([table, table.mean(0, keepdim=True)])
    model.load_state_dict(weights)
    return model


class MaskedTrainer(Trainer[EuroBertForMaskedLM]):
    """A run of a masked model: three quarters list operations, the rest windows of stories and code with a hidden span."""

    def __init__(
        self, model: EuroBertForMaskedLM, tokenizer: PreTrainedTokenizerFast, store: TokenStore, settings: Optimization,
        folder: Path, *, seed: int, total: int, log: Callable[[str], None] = print,
    ) -> None:  # fmt: skip
        super().__init__(model, store, settings, folder, seed=seed, total=total, objective=hidden_cross_entropy, log=log)
        self._tokenizer = tokenizer

    def parts(self) -> list[tuple[Hidden, float]]:
        step = self.progress.step
        texts = self.store.batch(self.seed, step, TEXT)
        generator = numpy.random.Generator(numpy.random.PCG64([self.seed, step, 1]))
        return [(self.lists(step), 1 - TEXT_SHARE), (self.spans(texts, generator), TEXT_SHARE)]

    def lists(self, step: int) -> Hidden:
        """List operations of one step. The canvas has up to four more slots than the answer and its end need."""
        random, tokenizer = Random(f"{self.seed} {step}"), self._tokenizer
        asked = list(islice(list_tasks.problems(random, held_out=False), LIST_ROWS))
        ids = torch.full((LIST_ROWS, LIST_WIDTH), tokenizer.pad_token_id)
        answer, attended = torch.zeros(2, *ids.shape, dtype=torch.bool)
        words = [" " + " ".join(problem.draw(random)) for problem in asked]
        prompts = tokenizer([problem.prompt for problem in asked], add_special_tokens=False)["input_ids"]
        replies = tokenizer(words, add_special_tokens=False)["input_ids"]
        for row, (prompt, reply) in enumerate(zip(prompts, replies, strict=True)):
            start = len(prompt)
            end = start + random.randint(len(reply) + 1, LIST_CANVAS)
            ids[row, start:end] = tokenizer.eos_token_id
            ids[row, : start + len(reply)] = torch.tensor(prompt + reply)
            answer[row, start:end] = attended[row, :end] = True
        return hide(ids, answer, attended, LIST_CANVAS, tokenizer.mask_token_id, numpy.random.default_rng([self.seed, step]))

    def spans(self, rows: Tensor, generator: numpy.random.Generator) -> Hidden:
        """Windows of text [R, T] of which a span is the answer: half of them continue, half are filled in."""
        count, length = rows.shape
        start = torch.from_numpy(generator.integers(4, length - 8, count))
        end = torch.from_numpy(generator.integers(start.numpy() + 4, length))
        end = torch.where(torch.from_numpy(generator.random(count)) < 0.5, length, end)
        column = torch.arange(length)
        answer = (column >= start[:, None]) & (column < end[:, None])
        return hide(rows, answer, torch.ones_like(answer), length, self._tokenizer.mask_token_id, generator)

    @torch.no_grad()
    def held_out_losses(self, windows: int) -> dict[str, float]:
        """Share of wrong list answers by task, and the cross-entropy (nats) of hidden spans by domain."""
        self.model.train(False)
        wrong = {f"wrong {task}": 1 - share for task, share in list_accuracy(self.model, self._tokenizer, windows).items()}
        for domain in self.store.domains:
            rows = self.store.held_out_rows(domain, Window(windows, TEXT.length))
            if rows is not None:
                wrong[domain] = float(hidden_cross_entropy(self.model, self.spans(rows, numpy.random.default_rng(0))))
        self.model.train()
        return wrong


@torch.no_grad()
def list_accuracy(
    model: EuroBertForMaskedLM, tokenizer: PreTrainedTokenizerFast, count: int, canvas: int = 8
) -> dict[str, float]:
    """Share of right answers for each task, `count` held-out problems each, one slot a call, the most confident first."""
    asked = list(islice(list_tasks.problems(Random("held out"), held_out=True), count * len(list_tasks.INSTRUCTIONS)))
    prompts = tokenizer([problem.prompt for problem in asked], add_special_tokens=False)["input_ids"]
    ids = torch.full((len(asked), max(map(len, prompts)) + canvas), tokenizer.pad_token_id)
    for row, prompt in enumerate(prompts):
        ids[row, : len(prompt)] = torch.tensor(prompt)
        ids[row, len(prompt) : len(prompt) + canvas] = tokenizer.mask_token_id
    attended = ids != tokenizer.pad_token_id
    for _ in range(canvas):
        logits = model(input_ids=ids, attention_mask=attended[:, None, None, :]).logits.float()
        logits[..., tokenizer.mask_token_id] = -torch.inf
        best, token = logits.softmax(-1).max(-1)
        slot = best.masked_fill(ids != tokenizer.mask_token_id, -1.0).argmax(1, keepdim=True)
        ids.scatter_(1, slot, token.gather(1, slot))
    right = dict.fromkeys(list_tasks.INSTRUCTIONS, 0)
    for row, problem in enumerate(asked):
        reply = ids[row, len(prompts[row]) : len(prompts[row]) + canvas].tolist()
        ended = reply.index(tokenizer.eos_token_id) if tokenizer.eos_token_id in reply else canvas
        right[problem.task] += problem.accepts(str(tokenizer.decode(reply[:ended])).split())
    return {task: number / count for task, number in right.items()}
