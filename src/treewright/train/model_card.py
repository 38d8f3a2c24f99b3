"""The model card (README.md) of an exported model."""

from __future__ import annotations

from collections.abc import Mapping

from .checkpoint import Progress
from .corpus import SOURCES

_FRONT_MATTER = """---
library_name: transformers
pipeline_tag: text-generation
language: en
---
"""

_LIMITS = """## What it is good for, and what not

It is a test bed for decoding methods: small enough for one CPU core, and trained on enough
syntax that grammars, JSON schemas, beam search, sampling and speculative decoding have something
real to work on. It continues simple stories, Python in the style of the standard library, short
SQL and JSON records. It knows no facts, follows no instructions, cannot reason or do sums, and
its code and queries are plausible rather than correct. Use it for nothing that matters to anyone.
"""


def _mixture_table(mixture: Mapping[str, float]) -> str:
    lines = ["| source | share of tokens | licence |", "|---|---|---|"]
    for name, share in mixture.items():
        source = SOURCES[name]
        lines.append(f"| {source.origin} | {share:.0%} | {source.licence} |")
    return "\n".join(lines)


def _loss_table(progress: Progress) -> str:
    if not progress.losses:
        return "Not evaluated yet."
    tokens, losses = progress.losses[-1]
    lines = [
        f"Mean cross-entropy in nats per token after {tokens:,} tokens, on documents held out by a hash of their text (1 %):",
        "",
        "| domain | loss |",
        "|---|---|",
    ]
    return "\n".join(lines + [f"| {domain} | {loss:.3f} |" for domain, loss in losses.items()])


def model_card(
    name: str,
    summary: str,
    parameters: int,
    mixture: Mapping[str, float],
    progress: Progress,
    teacher: str | None = None,
) -> str:
    """The card's markdown text."""
    method = (
        f"distilled from `{teacher}` (KL to its next-token distributions, plus cross-entropy)"
        if teacher
        else "trained from scratch (cross-entropy)"
    )
    done = progress.tokens >= progress.schedule.total
    state = "" if done else "\nThis is an early checkpoint: training has not ended.\n"
    return f"""{_FRONT_MATTER}
# {name}

{summary[0].upper()}{summary[1:]}.
{state}
{parameters:,} parameters (Llama architecture, tied embeddings; {2 * parameters / 1e6:.1f} MB in
bfloat16), {method}
on {progress.tokens:,} tokens with a byte-level BPE vocabulary of its own. AdamW, bf16 autocast,
warm-up, stable and decay learning rate; {progress.active_seconds / 60:.0f} minutes of two CPU
cores. The recipe that made it:

    treewright train {name} --data DIR --tokens {progress.schedule.total}

{_LIMITS}
## Training data

{_mixture_table(mixture)}

Benchmarks' test parts were not trained on. The licences of the data are those of its makers.

## Held-out loss

{_loss_table(progress)}
"""
