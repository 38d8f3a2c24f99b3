"""The training loop: packed windows, bf16 autocast, AdamW, checkpoints and the finish trigger."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import LlamaForCausalLM

from . import checkpoint
from .checkpoint import Progress
from .schedule import Schedule
from .token_store import Window

FINISH_FILE = "finish"

Module = TypeVar("Module", bound=nn.Module, contravariant=True)
Trained = TypeVar("Trained", bound=nn.Module)


class Objective(Protocol[Module]):
    """The mean loss (nats), with gradient, of what a trainer's `parts` gives: token rows [sequences, length + 1] here."""

    def __call__(self, model: Module, rows: Any) -> Tensor: ...


class Blocks(Protocol):
    """Where token rows come from. A batch is a function of (seed, step) alone, so that a resumed run reads the same."""

    @property
    def domains(self) -> tuple[str, ...]: ...

    def batch(self, seed: int, step: int, window: Window) -> Tensor: ...

    def held_out_rows(self, domain: str, window: Window) -> Tensor | None: ...


@dataclass(frozen=True)
class Optimization:
    """How a run optimises.  Token counts everywhere: wall-clock time decides nothing.

    Every `long_every`-th step uses `long_window` instead of `window` (0: never), so that the
    model has seen its whole context length.  Both must hold the same number of tokens, and
    `micro_sequences` counts sequences of `window` per forward pass.
    """

    peak_learning_rate: float
    window: Window = Window(16, 512)
    long_window: Window = Window(4, 2048)
    long_every: int = 16
    micro_sequences: int = 4
    warm_up_tokens: int = 1_000_000
    decay_share: float = 0.25
    weight_decay: float = 0.1
    betas: tuple[float, float] = (0.9, 0.95)
    gradient_norm: float = 1.0
    checkpoint_tokens: int = 1_000_000
    report_tokens: int = 200_000
    evaluation_windows: int = 16
    compiled: bool = True

    def __post_init__(self) -> None:
        if self.long_every and self.long_window.tokens != self.window.tokens:
            raise ValueError(
                f"long window {self.long_window} holds {self.long_window.tokens} tokens and "
                f"window {self.window} {self.window.tokens}; give both the same number of tokens"
            )

    @property
    def step_tokens(self) -> int:
        """Predicted tokens per optimiser step."""
        return self.window.tokens

    @property
    def longest(self) -> int:
        """The most predicted tokens in one sequence."""
        return max(self.window.length, self.long_window.length if self.long_every else 0)

    def window_of(self, step: int) -> Window:
        """The window shape of a step."""
        is_long = self.long_every and step % self.long_every == self.long_every - 1
        return self.long_window if is_long else self.window


def logits_of(model: LlamaForCausalLM, rows: Tensor) -> Tensor:
    """Next-token logits [sequences, length, vocabulary] (bfloat16) for all but the last token."""
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(input_ids=rows[:, :-1], use_cache=False).logits
    assert isinstance(logits, Tensor)
    return logits


def cross_entropy(model: LlamaForCausalLM, rows: Tensor) -> Tensor:
    """Mean next-token cross-entropy in nats; the objective of a language model."""
    logits = logits_of(model, rows)
    return functional.cross_entropy(logits.flatten(0, 1).float(), rows[:, 1:].flatten())


def make_optimizer(model: nn.Module, settings: Optimization) -> torch.optim.AdamW:
    """AdamW that decays matrices only (norm gains are left alone)."""
    matrices = [weight for weight in model.parameters() if weight.ndim >= 2]
    gains = [weight for weight in model.parameters() if weight.ndim < 2]
    groups = [
        {"params": matrices, "weight_decay": settings.weight_decay},
        {"params": gains, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=settings.peak_learning_rate, betas=settings.betas, fused=True)


@torch.no_grad()
def held_out_losses(
    model: nn.Module, store: Blocks, settings: Optimization, windows: int, measure: Objective[Any] = cross_entropy
) -> dict[str, float]:
    """Held-out cross-entropy, or another measure (nats per token), by domain, over up to `windows` windows each."""
    losses = {}
    for domain in store.domains:
        rows = store.held_out_rows(domain, Window(windows, settings.window.length))
        if rows is not None:
            parts = torch.split(rows, settings.micro_sequences)
            total = sum(float(measure(model, part)) * len(part) for part in parts)
            losses[domain] = total / len(rows)
    return losses


class Trainer(Generic[Trained]):
    """One run: a model, its optimiser and its progress, tied to a run folder.

    `total` is the budget in tokens, `objective` gives the loss of a micro-batch, `measure` that of held-out rows, and
    `log` receives one line of text at a time. The model is any module that the objective knows how to train.
    """

    def __init__(
        self,
        model: Trained,
        store: Blocks,
        settings: Optimization,
        folder: Path,
        *,
        seed: int,
        total: int,
        objective: Objective[Any] = cross_entropy,
        measure: Objective[Any] = cross_entropy,
        log: Callable[[str], None] = print,
    ) -> None:
        self.model = model
        self.store = store
        self.settings = settings
        self.folder = folder
        self.seed = seed
        self.log = log
        self.optimizer = make_optimizer(model, settings)
        compiled = torch.compile(objective, dynamic=False) if settings.compiled else objective
        self._objective: Objective[Any] = compiled
        self._measure = measure
        self.progress = Progress(Schedule.for_budget(total, settings.warm_up_tokens, settings.decay_share))

    def resume(self, total: int | None = None) -> None:
        """Continue from the folder's checkpoint, with another budget when `total` is given.

        Raises:
            CheckpointError: the folder has no checkpoint.
            ValueError: `total` tokens are already spent.
        """
        weights, optimizer, progress = checkpoint.load(self.folder)
        self.model.load_state_dict(weights)
        self.optimizer.load_state_dict(optimizer)
        if total is not None and total != progress.schedule.total:
            progress.schedule = progress.schedule.with_budget(total, self.settings.decay_share, progress.tokens)
        self.progress = progress

    def save(self) -> None:
        """Write a checkpoint (about 12 bytes per parameter)."""
        checkpoint.save(self.folder, self.model.state_dict(), self.optimizer.state_dict(), self.progress)

    def parts(self) -> list[tuple[Any, float]]:
        """What the next step's loss is made of: arguments of the objective, and the weight of each."""
        settings, step = self.settings, self.progress.step
        window = settings.window_of(step)
        rows = self.store.batch(self.seed, step, window)
        size = max(1, settings.micro_sequences * settings.window.length // window.length)
        return [(part, len(part) / len(rows)) for part in torch.split(rows, size)]

    def step(self) -> float:
        """One optimiser step; returns its mean training loss in nats per token."""
        settings, progress = self.settings, self.progress
        learning_rate = settings.peak_learning_rate * progress.schedule.scale(progress.tokens)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        total = 0.0
        for part, weight in self.parts():
            loss = self._objective(self.model, part) * weight
            torch.autograd.backward(loss)
            total += float(loss.detach())
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), settings.gradient_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        progress.step += 1
        progress.tokens += settings.step_tokens
        return total

    def _watch_for_finish(self) -> None:
        """Begin the decay when the file `finish` (empty, or a number of tokens) appears.

        The file is removed once the decision is in a checkpoint, so that it acts exactly once.
        """
        path = self.folder / FINISH_FILE
        progress = self.progress
        if progress.tokens >= progress.schedule.decay_start or not path.is_file():
            return
        text = path.read_text().strip().replace("_", "")
        if text and not text.isdecimal():
            self.log(f"{str(path)!r} holds {text!r}; leave it empty or write a token count")
            return
        progress.schedule = progress.schedule.finish_now(progress.tokens, int(text or 0) or None)
        self.log(f"finishing: decay from {progress.tokens} to {progress.schedule.total}")
        self.save()
        path.unlink()

    def held_out_losses(self, windows: int) -> dict[str, float]:
        """Held-out losses by domain, over up to `windows` windows each."""
        return held_out_losses(self.model, self.store, self.settings, windows, self._measure)

    def evaluate(self, windows: int) -> dict[str, float]:
        """Held-out losses now, appended to the progress and logged."""
        losses = self.held_out_losses(windows)
        self.progress.losses.append((self.progress.tokens, losses))
        text = "  ".join(f"{domain} {loss:.3f}" for domain, loss in losses.items())
        self.log(f"held-out at {self.progress.tokens} tokens: {text}")
        return losses

    def run(self, milestone: Callable[[], None] | None = None, milestone_tokens: int = 5_000_000) -> Progress:
        """Train until the schedule's end; the last act is an evaluation and a checkpoint.

        `milestone` is called after the first checkpoint and then every `milestone_tokens` tokens.
        """
        settings, progress = self.settings, self.progress
        report = _Report(progress, settings.report_tokens, self.log)
        self.model.train()
        while progress.tokens < progress.schedule.total:
            self._watch_for_finish()
            before = progress.tokens
            report.add(self.step(), self.optimizer.param_groups[0]["lr"])
            is_last = progress.tokens >= progress.schedule.total
            if not is_last and _crossed(before, progress.tokens, settings.checkpoint_tokens):
                self.evaluate(settings.evaluation_windows)
                self.save()
                first = before < settings.checkpoint_tokens
                if milestone and (first or _crossed(before, progress.tokens, milestone_tokens)):
                    milestone()
        self.evaluate(4 * settings.evaluation_windows)
        self.save()
        return progress


def _crossed(before: int, after: int, interval: int) -> bool:
    return before // interval != after // interval


class _Report:
    """Logs loss and speed every `interval` tokens; speed counts this process's CPU time only."""

    def __init__(self, progress: Progress, interval: int, log: Callable[[str], None]) -> None:
        self._progress = progress
        self._interval = interval
        self._log = log
        self._tokens = progress.tokens
        self._losses: list[float] = []
        self._clock = time.process_time()

    def add(self, loss: float, learning_rate: float) -> None:
        self._losses.append(loss)
        tokens = self._progress.tokens - self._tokens
        if tokens < self._interval:
            return
        # CPU seconds over threads: stays meaningful while the process is paused or shares cores.
        now = time.process_time()
        active = (now - self._clock) / torch.get_num_threads()
        self._progress.active_seconds += active
        self._log(
            f"step {self._progress.step}  tokens {self._progress.tokens}  "
            f"loss {sum(self._losses) / len(self._losses):.4f}  "
            f"learning rate {learning_rate:.2e}  {tokens / active:.0f} tokens/s (active)"
        )
        self._tokens, self._losses, self._clock = self._progress.tokens, [], now
