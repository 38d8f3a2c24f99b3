"""Whether a run fits into the memory that is free: found out by counting, before any of it is asked for."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from typing import Any

from treewright.core.errors import InputError
from treewright.core.request import Request
from treewright.core.roles import Parts
from treewright.engine.size import Size
from treewright.models.causal_session import reserved
from treewright.models.free_memory import free_bytes

LOGIT = MASK = 4
TOKEN = 8
ROW = 1024
"""Bytes of one logit, of one entry of a mask, of one token of the text; and what a row that waits or has ended holds at least."""


def check_memory(recipe: str, request: Request, parts: Parts, size: Size, models: Mapping[str, Any], device: Any) -> None:
    """Raises InputError where a run would need more memory than is free: keys and values, the logits and masks of a round, and
    text of all rows that are decoded at once. What is counted is the least that it needs, so a run that passes may still be too
    large; one that is refused cannot be."""
    has = models["target"].capabilities
    length = max(len(has.own_text(prompt)) for prompt in request.prompts) + request.max_new_tokens
    length = length if has.max_length is None else min(length, has.max_length)
    kept = parts.claims_per_token * min(request.max_new_tokens, length)
    slot_bytes = sum(model.capabilities.slot_bytes for model in models.values())
    own = size.claims * (has.vocabulary * LOGIT + (size.claims + length) * MASK) + length * TOKEN

    def decoding(rows: int) -> int:
        held, _, slots = reserved(rows, max(size.claims + kept, min(parts.reads, length)), length)
        return held * slots * slot_bytes + rows * own

    waiting = size.slots * len(request.prompts) * ROW
    needed, free = decoding(size.rows) + waiting, free_bytes(device)
    if free is None or needed <= free:
        return
    fit = 0 if waiting > free else bisect_right(range(1, size.rows), free - waiting, key=decoding)
    if waiting > free:
        remedy = f"ask for at most {free // (len(request.prompts) * ROW)} samples or candidates of a prompt"
    elif size.rows == 1 or not fit:
        remedy = "lower the options of the method that ask for claims, or max_new_tokens"
    else:
        remedy = f"at most about {fit} rows fit: lower the method's beams or candidates, n, batch_rows or max_new_tokens"
    raise InputError(
        f"{recipe} needs at least {_gib(needed)} of memory for {size.rows} rows at once, {size.slots} of each "
        f"prompt, with up to {length} tokens and {size.claims + kept} claims, and {_gib(free)} are free; {remedy}"
    )


def _gib(size: int) -> str:
    tenths = size * 10 >> 30  # whole numbers: a size may be beyond all floats
    return f"{tenths // 10}.{tenths % 10} GiB"
