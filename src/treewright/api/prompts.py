"""Prompts of every kind as token ids, checked against the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import Any

from treewright.core.errors import InputError
from treewright.core.session import check_room
from treewright.core.typed import shown
from treewright.models.loading import Loaded

Prompt = str | Sequence[int] | Sequence[Mapping[str, str]]
"""Text, token ids, or a chat: a list of {"role": ..., "content": ...}, which the tokenizer's chat template lays out."""

BYTES = (bytes, bytearray, memoryview)


def is_many(prompts: Any) -> bool:
    """True for a list of prompts, False for one prompt: a string, token ids, or a chat."""
    if isinstance(prompts, str):
        return False
    if not isinstance(prompts, Sequence) or isinstance(prompts, BYTES):
        raise InputError(
            f"prompts is a {type(prompts).__name__}; give text, a list of token ids (a tensor's .tolist()), a chat, or a list "
            "of those"
        )
    first = next(iter(prompts), None)
    return not isinstance(first, (Integral, Mapping)) and not (first is None and isinstance(prompts, tuple))


def encode(target: Loaded, prompt: Prompt, index: int) -> tuple[int, ...]:
    """The token ids of prompt number `index`. Raises InputError for a prompt of no known kind, text or a chat that the
    model's tokenizer cannot read, or ids that the model does not have."""
    if not isinstance(prompt, Sequence) or isinstance(prompt, BYTES):
        raise InputError(
            f"prompt {index} is a {type(prompt).__name__} of no known kind; give text, a list of token ids, or a chat"
        )
    if not isinstance(prompt, str) and all(isinstance(token, Integral) and not isinstance(token, bool) for token in prompt):
        return _check_ids(target, tuple(map(int, prompt)), index)  # type: ignore[arg-type]
    if not isinstance(prompt, str) and not all(isinstance(turn, Mapping) for turn in prompt):
        raise InputError(f"prompt {index} is {shown(prompt)}, of no known kind; give text, a list of token ids, or a chat")
    if target.tokenizer is None:
        raise InputError(f"prompt {index} is text but model '{target.name}' has no tokenizer; give token ids, or a tokenizer")
    if isinstance(prompt, str):
        if any("\ud800" <= letter <= "\udfff" for letter in prompt):
            raise InputError(f"prompt {index} holds bytes that are no UTF-8 text, or half a character; give valid Unicode text")
        return tuple(target.tokenizer(prompt)["input_ids"])
    if target.tokenizer.chat_template is None:
        raise InputError(f"prompt {index} is a chat but model '{target.name}' has no chat template; give text")
    turns: list[Any] = list(prompt)
    ids: Any = target.tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=False)
    return tuple(ids)


def _check_ids(target: Loaded, ids: tuple[int, ...], index: int) -> tuple[int, ...]:
    vocabulary = target.protocol.capabilities.vocabulary
    wrong = next((token for token in ids if not 0 <= token < vocabulary), None)
    if wrong is not None:
        raise InputError(f"prompt {index} holds token id {wrong}; model '{target.name}' has ids 0 to {vocabulary - 1}")
    return ids


def check_context(target: Loaded, prompts: Sequence[Sequence[int]]) -> None:
    """Raises ContextError for a prompt that the model cannot read or that leaves no position for a new token."""
    for index, prompt in enumerate(prompts):
        check_room(target.protocol.capabilities, len(prompt), f"prompt {index}", f"model '{target.name}'")
