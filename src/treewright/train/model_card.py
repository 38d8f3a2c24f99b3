"""The model card (README.md) of an exported model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .checkpoint import Progress
from .corpus import SOURCES

_FRONT_MATTER = """---
library_name: transformers
pipeline_tag: {pipeline}
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


_MASKED_LIMITS = """## What it is good for, and what not

It is a test bed for the samplers of masked diffusion: small enough for one CPU core, and trained on list operations on which
one slot a call is nearly always right and many slots a call are not. It was shown prompts such as
`List: bird dog cat` with `Reverse the list:` on the next line, with 3 to 6 of 32 nouns, and an answer
padded with end of text to at most 12 slots; other prompts get nonsense. Of stories and Python it
has seen windows of 64 tokens and fills in plausible words at best. It knows no facts and follows no
instructions. Use it for nothing that matters to anyone.
"""


@dataclass(frozen=True)
class Making:
    """What a card says of how a kind of model is made. losses: what the loss table holds. cores: what it was trained
    on. part: whose shares the table of data gives."""

    pipeline: str
    architecture: str
    method: str
    limits: str
    losses: str
    cores: str
    part: str = "tokens"


def causal(teacher: str | None) -> Making:
    """A left-to-right model, trained from scratch or distilled."""
    method = (
        f"distilled from `{teacher}` (KL to its next-token distributions, plus cross-entropy)"
        if teacher
        else "trained from scratch (cross-entropy)"
    )
    method += "\non {tokens} tokens with a byte-level BPE vocabulary of its own"
    return Making("text-generation", "Llama", method, _LIMITS, "Mean cross-entropy in nats per token", "two CPU\ncores")


def masked(start: str, text_share: float) -> Making:
    """A masked model that began with a causal one's weights."""
    method = (
        f"begun with layers of `{start}` without the causal mask and trained (cross-entropy of a uniform\nnumber of hidden "
        f"slots) on {{tokens}} tokens: {1 - text_share:.0%} of the loss on list operations made by\n"
        f"`treewright.train.list_tasks`, {text_share:.0%} on text. The vocabulary is that of `{start}` and a mask token"
    )
    losses = "Share of wrong answers at one slot a call (held-out prompts), and cross-entropy in nats of hidden spans of text,"
    return Making("fill-mask", "EuroBERT", method, _MASKED_LIMITS, losses, "one CPU\ncore", "text")


def _mixture_table(mixture: Mapping[str, float], part: str) -> str:
    lines = [f"| source | share of {part} | licence |", "|---|---|---|"]
    for name, share in mixture.items():
        source = SOURCES[name]
        lines.append(f"| {source.origin} | {share:.0%} | {source.licence} |")
    return "\n".join(lines)


def _loss_table(progress: Progress, what: str) -> str:
    if not progress.losses:
        return "Not evaluated yet."
    tokens, losses = progress.losses[-1]
    lines = [
        f"{what} after {tokens:,} tokens, on documents held out by a hash of their text (1 %):",
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
    making: Making,
) -> str:
    """The card's markdown text."""
    done = progress.tokens >= progress.schedule.total
    state = "" if done else "\nThis is an early checkpoint: training has not ended.\n"
    return f"""{_FRONT_MATTER.format(pipeline=making.pipeline)}
# {name}

{summary[0].upper()}{summary[1:]}.
{state}
{parameters:,} parameters ({making.architecture} architecture, tied embeddings; {2 * parameters / 1e6:.1f} MB in
bfloat16), {making.method.format(tokens=f"{progress.tokens:,}")}. AdamW, bf16 autocast,
warm-up, stable and decay learning rate; {progress.active_seconds / 60:.0f} minutes of {making.cores}. The recipe that made it:

    treewright train {name} --data DIR --tokens {progress.schedule.total}

{making.limits}
## Training data

{_mixture_table(mixture, making.part)}

Benchmarks' test parts were not trained on. The licences of the data are those of its makers.

## Held-out loss

{_loss_table(progress, making.losses)}
"""
