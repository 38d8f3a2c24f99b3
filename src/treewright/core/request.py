"""What the user wants: prompts, length, sampling law, stops, seed and budget. Plain frozen values, checked on creation."""

from __future__ import annotations

from dataclasses import dataclass, field

from treewright.core.errors import InputError, require
from treewright.core.grammar import Constraint
from treewright.core.typed import check_fields


@dataclass(frozen=True, slots=True)
class Sampling:
    """The warpers and penalties of the target law, in the order transformers applies them.

    temperature 0 is greedy: the law puts all its mass on the largest logit, and the warpers below have no effect.
    """

    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    typical_p: float | None = None
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: tuple[tuple[int, float], ...] = ()

    def __post_init__(self) -> None:
        check_fields(self)
        require(self.temperature >= 0, "temperature", self.temperature, "a number >= 0")
        require(self.top_k is None or self.top_k >= 1, "top_k", self.top_k, "an integer >= 1")
        for name in ("top_p", "min_p", "typical_p"):
            value = getattr(self, name)
            require(value is None or 0 < value <= 1, name, value, "a number in (0, 1]")
        require(self.repetition_penalty > 0, "repetition_penalty", self.repetition_penalty, "a number > 0")

    @property
    def greedy(self) -> bool:
        return self.temperature == 0

    @property
    def history(self) -> bool:
        """True where the law at a claim depends on more than its own logits."""
        return self.repetition_penalty != 1 or self.presence_penalty != 0 or self.frequency_penalty != 0


@dataclass(frozen=True, slots=True)
class Budget:
    """Stop when any of these is spent: new tokens of a row, target forwards of the run, seconds of the run."""

    tokens: int | None = None
    model_calls: int | None = None
    seconds: float | None = None

    def __post_init__(self) -> None:
        names = ("tokens", "model_calls", "seconds")
        check_fields(self, {name: f"budget {name}" for name in names})
        for name in names:
            value = getattr(self, name)
            require(value is None or value > 0, f"budget {name}", value, "a number > 0")


@dataclass(frozen=True, slots=True)
class Request:
    """One run over a list of prompts (token ids)."""

    prompts: tuple[tuple[int, ...], ...]
    max_new_tokens: int = 128
    min_new_tokens: int = 0
    sampling: Sampling = field(default_factory=Sampling)
    seed: int = 0
    samples: int = 1
    stop: tuple[str, ...] = ()
    stop_ids: tuple[int, ...] = ()
    eos_ids: tuple[int, ...] = ()
    ignore_eos: bool = False
    budget: Budget = field(default_factory=Budget)
    logprobs: bool = False
    batch_rows: int = 16
    constraints: tuple[Constraint | None, ...] = ()
    """One for each prompt, or none at all."""

    @property
    def ends(self) -> frozenset[int]:
        """The ids that end a row once it has min_new_tokens."""
        return frozenset(self.stop_ids) | (frozenset() if self.ignore_eos else frozenset(self.eos_ids))

    def __post_init__(self) -> None:
        check_fields(self, {"samples": "n"})
        require(bool(self.prompts), "prompts", "[]", "at least one prompt")
        for index, prompt in enumerate(self.prompts):
            if not prompt:
                raise InputError(f"prompt {index} is empty (0 tokens); give at least one token to continue from")
        require(self.max_new_tokens >= 1, "max_new_tokens", self.max_new_tokens, "an integer >= 1")
        require(
            0 <= self.min_new_tokens <= self.max_new_tokens,
            "min_new_tokens",
            self.min_new_tokens,
            f"an integer from 0 to max_new_tokens ({self.max_new_tokens})",
        )
        require(self.samples >= 1, "n", self.samples, "an integer >= 1")
        require(self.batch_rows >= 1, "batch_rows", self.batch_rows, "an integer >= 1")
        if len(self.constraints) not in (0, len(self.prompts)):
            raise InputError(
                f"constraint is a list of {len(self.constraints)}; give one, or one for each of {len(self.prompts)} prompts"
            )
        require(all(self.stop), "stop", '""', "strings of at least one character")
