"""How long the rows of a request may become, and what each model is given to read before them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from treewright.core.errors import InputError
from treewright.core.request import Request
from treewright.core.roles import Parts
from treewright.core.session import Model, check_room


def steering_models(parts: Parts) -> list[str]:
    """The names of the models that make the law with the target."""
    return sorted({name for part in parts.steer for name in part.models})


def prompt_for(parts: Parts, model: str, prompt: Sequence[int]) -> Sequence[int]:
    """The prompt as a model reads it: steering may give its models one of their own."""
    for part in parts.steer:
        if model in part.models:
            prompt = part.prompt(model, prompt)
    return prompt


def row_limits(request: Request, models: Mapping[str, Model], parts: Parts) -> list[int]:
    """For each prompt the most tokens that a row of it may hold, the prompt's own included: what was asked for, as far as every
    model that makes the law or writes text has positions. A draft model that runs out of them only drafts worse, but it must be
    able to read the prompt.

    Raises ContextError where a model has no room for a single new token, InputError where a prompt is rewritten to nothing.
    """
    deciding = {"target", *steering_models(parts), *parts.writers}
    return [_limit(request, models, parts, deciding, index) for index in range(len(request.prompts))]


def _limit(request: Request, models: Mapping[str, Model], parts: Parts, deciding: set[str], index: int) -> int:
    prompt = request.prompts[index]
    limit = len(prompt) + request.max_new_tokens
    for name, model in models.items():
        given, most = prompt_for(parts, name, prompt), model.capabilities.max_length
        if len(given) == 0:
            raise InputError(f"prompt {index} was rewritten to 0 tokens for model '{name}'; leave at least one")
        check_room(model.capabilities, len(given), f"prompt {index}", f"model '{name}'")
        own = len(model.capabilities.own_text(given))
        if most is not None and name in deciding:
            limit = min(limit, most - own + len(prompt))
    return limit
