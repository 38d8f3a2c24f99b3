"""Everything that can be wrong with a request is found here, before the first forward."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from treewright.api.constraints import compile_constraints, read_constraints
from treewright.api.job import Job
from treewright.api.prompts import Prompt, check_context, encode
from treewright.api.scorers import scorers_of
from treewright.api.settings import check_ids
from treewright.api.vocabularies import check_prompts, fitted
from treewright.core.build import parts_by_method
from treewright.core.card import Card
from treewright.core.errors import CapabilityError, ConstraintError, InputError, UnknownOption
from treewright.core.recipe import Recipe
from treewright.core.registry import entries
from treewright.core.request import Request
from treewright.core.typed import shown
from treewright.models.loading import Loaded, load


def prepare(
    model: Any, prompts: Sequence[Prompt], method: str, options: Mapping[str, Any] | None,
    models: Mapping[str, Any] | None, settings: Mapping[str, Any],
) -> Job:  # fmt: skip
    """Checks everything before the first forward. `settings` are the fields of a Request but for the prompts, and
    `constraint` as `generate` takes it."""
    recipe = Recipe.of(method, options)
    cards = recipe.all_cards()
    target = model if isinstance(model, Loaded) else load(model)
    _check_needs(target, cards)
    if models is not None and not (isinstance(models, Mapping) and all(isinstance(role, str) for role in models)):
        raise InputError(f"models is {shown(models)}; give a mapping of roles to models, such as {{'draft': 'default-draft'}}")
    wanted = recipe.scorers()
    judges = {role: judge for role, judge in (models or {}).items() if role in wanted}
    others = _check_models(target, cards, {role: other for role, other in (models or {}).items() if role not in wanted})
    scorers = scorers_of(target, wanted, judges)
    ids = tuple(encode(target, prompt, index) for index, prompt in enumerate(prompts))
    check_context(target, ids)
    if settings.get("stop") and target.tokenizer is None:
        raise InputError(f"stop is {settings['stop']} but model '{target.name}' has no tokenizer; give stop_ids, or a tokenizer")
    fields = dict(settings)
    constraints = read_constraints(fields.pop("constraint", None), len(ids))
    request = Request(prompts=ids, eos_ids=target.eos_ids, constraints=constraints, **fields)
    check_ids(target, request)
    check_prompts(others, ids)
    _check_canvas(target, request)
    protocols = {"target": target.protocol, **{role: other.protocol for role, other in others.items()}}
    return Job(target, recipe, request, protocols, compile_constraints(target, request, cards), scorers)


def fits(target: Any, method: str) -> bool:
    """Whether the model has what the method needs, and the weights that the method brings by default are for this model."""
    loaded = target if isinstance(target, Loaded) else load(target)
    has = loaded.protocol.capabilities
    if any(has.missing(card.needs) for card in Recipe.of(method).all_cards()):
        return False
    try:
        for parts in parts_by_method(Recipe.of(method)).values():
            for check in parts.fits:
                check(has)
    except (CapabilityError, UnknownOption):
        return False
    return True


def _check_canvas(target: Loaded, request: Request) -> None:
    """What a model that fills slots in any order cannot do: say which token comes next."""
    mask = target.protocol.capabilities.mask
    if mask is None:
        return
    if any(request.constraints):
        raise ConstraintError(f"a constraint was given, but model '{target.name}' fills slots in any order; use a causal model")
    if request.logprobs:
        raise InputError(f"logprobs is True, but model '{target.name}' fills slots in any order; leave it out")
    for index, prompt in enumerate(request.prompts):
        if mask in prompt:
            raise InputError(f"prompt {index} holds the mask token {mask}, the mark of an open slot; leave it out")


def _check_needs(target: Loaded, cards: Sequence[Card]) -> None:
    for card in cards:
        missing = target.protocol.capabilities.missing(card.needs)
        if missing:
            fitting = [e.card.name for e in entries().values() if not target.protocol.capabilities.missing(e.card.needs)]
            raise CapabilityError(
                f"method '{card.name}' needs {', '.join(missing)}, which model '{target.name}' does not have; "
                f"methods that fit it: {', '.join(fitting) or 'none'}"
            )


def _check_models(target: Loaded, cards: Sequence[Card], models: Mapping[str, Any]) -> dict[str, Loaded]:
    needed = {role: card.name for card in cards for role in card.models}
    for role, method in needed.items():
        if role not in models:
            raise InputError(
                f"method '{method}' needs a model for the role '{role}'; give models={{'{role}': ...}} (--with {role}=MODEL)"
            )
    unused = sorted(set(models) - set(needed))
    if unused:
        used = [*needed, *(str(scorer) for card in cards for scorer in card.scorers)]
        raise InputError(
            f"no method in {'+'.join(card.name for card in cards)} uses a model for the role '{unused[0]}'; "
            f"roles used: {', '.join(used) or 'none'}"
        )
    others = {role: other if isinstance(other, Loaded) else load(other) for role, other in models.items()}
    others = {role: fitted(target, role, other, cards) for role, other in others.items()}
    for card in cards:
        for role, needs in card.models_need:
            missing = others[role].protocol.capabilities.missing(needs)
            if missing:
                raise CapabilityError(
                    f"method '{card.name}' needs {', '.join(missing)} of the model for the role '{role}', which model "
                    f"'{others[role].name}' does not have; give a model whose layers can run in part, such as a llama"
                )
    return others
