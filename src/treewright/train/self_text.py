"""Text that a target writes itself, as training rows beside the corpora.

What a draft must agree with is what the target would say on its own text, and a small model's own text is not its corpus.
Rows begin with a piece of a corpus and go on greedily; training and held-out rows begin in the corpora's own two parts.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy
import torch
from torch import Tensor

from treewright.api import Loaded, generate
from treewright.core.result import Result

from .token_store import TokenStore, Window

DOMAIN = "self"
AT_ONCE = 64
HELD_OUT_SHARE = 0.25
PROMPT_STEP = 2**32 - 1
"""The step whose batch the prompts are: one that no training run reaches."""


@dataclass(frozen=True)
class SelfTextPlan:
    """rows: how many. prompt and continuation: tokens of each."""

    rows: int
    prompt: int
    continuation: int

    @property
    def width(self) -> int:
        """Tokens of a row."""
        return self.prompt + self.continuation


def write_self_text(
    target: Loaded, store: TokenStore, plan: SelfTextPlan, folder: Path, seed: int, log: Callable[[str], None]
) -> None:
    """Writes the rows of a plan to `folder` unless the same plan did so before. A run that was cut off begins again.

    Cost: plan.continuation target calls of 64 rows for every 64 rows, and a quarter as many for the held-out rows.
    """
    wanted = {"target": target.name, "seed": seed, "rows": plan.rows, "prompt": plan.prompt, "continuation": plan.continuation}
    manifest = folder / "self.json"
    if manifest.is_file() and json.loads(manifest.read_text()) == wanted:
        return
    for part, rows in (("train", plan.rows), ("held_out", max(1, int(plan.rows * HELD_OUT_SHARE)))):
        log(f"{target.name} writes {rows} rows of {plan.continuation} tokens ({part})")
        prompts = _prompts(store, part, rows, plan.prompt, seed)
        written = []
        for start in range(0, len(prompts), AT_ONCE):
            written.append(_continued(target, prompts[start : start + AT_ONCE], plan))
            if start // AT_ONCE % 8 == 7:
                log(f"{start + AT_ONCE} rows are written")
        numpy.save(folder / f"self.{part}.npy", numpy.concatenate(written).astype(numpy.uint32))
    manifest.write_text(json.dumps(wanted))


def _prompts(store: TokenStore, part: str, rows: int, length: int, seed: int) -> list[list[int]]:
    if part == "train":
        return store.batch(seed, PROMPT_STEP, Window(rows, length - 1)).tolist()
    share = -(-rows // len(store.domains))
    found = [store.held_out_rows(domain, Window(share, length - 1)) for domain in store.domains]
    return torch.cat([own for own in found if own is not None]).tolist()


def _continued(target: Loaded, prompts: list[list[int]], plan: SelfTextPlan) -> numpy.ndarray:
    results: list[Result] = generate(  # type: ignore[assignment]
        target, prompts, max_new_tokens=plan.continuation, ignore_eos=True, batch_rows=AT_ONCE
    )
    return numpy.array([prompt + result.tokens for prompt, result in zip(prompts, results, strict=True)])


class WithSelfText:
    """Corpus windows, and in `share` of the steps rows that the target wrote itself."""

    def __init__(self, store: TokenStore, folder: Path, share: float) -> None:
        self._store, self._share = store, share
        self._training = numpy.load(folder / "self.train.npy", mmap_mode="r")
        self._held_out = numpy.load(folder / "self.held_out.npy", mmap_mode="r")

    @property
    def domains(self) -> tuple[str, ...]:
        """The corpora's domains and the target's own text."""
        return (*self._store.domains, DOMAIN)

    def batch(self, seed: int, step: int, window: Window) -> Tensor:
        """Rows [n, length + 1] from the corpora, or whole rows of the target's own with about as many tokens."""
        random = numpy.random.Generator(numpy.random.PCG64([seed, step, 1]))
        if random.random() >= self._share:
            return self._store.batch(seed, step, window)
        count = max(1, window.tokens // self._training.shape[1])
        chosen = random.integers(0, len(self._training), count)
        return torch.from_numpy(self._training[chosen].astype(numpy.int64))

    def held_out_rows(self, domain: str, window: Window) -> Tensor | None:
        """Held-out rows of a domain; of the target's own text up to as many tokens, in whole rows."""
        if domain != DOMAIN:
            return self._store.held_out_rows(domain, window)
        count = max(1, window.tokens // self._held_out.shape[1])
        return torch.from_numpy(self._held_out[:count].astype(numpy.int64))

    def own_rows(self) -> Tensor:
        """All held-out rows that the target wrote, [n, T]."""
        return torch.from_numpy(self._held_out[:].astype(numpy.int64))
