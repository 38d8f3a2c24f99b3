"""Everything that can be wrong with a request is found here, before the first forward."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from treewright.api.job import Job, build_parts
from treewright.api.prompts import Prompt, check_context, encode
from treewright.core.card import Card
from treewright.core.errors import CapabilityError, ConstraintError, InputError
from treewright.core.grammar import Grammar
from treewright.core.recipe import Recipe
from treewright.core.registry import entries
from treewright.core.request import Request
from treewright.core.roles import Scorer
from treewright.models.loading import Loaded, load
from treewright.parts.constrain.grammar import compile_grammar, vocabulary_of


def prepare(
    model: Any, prompts: Sequence[Prompt], method: str, options: Mapping[str, Any] | None,
    models: Mapping[str, Any] | None, settings: Mapping[str, Any],
) -> Job:  # fmt: skip
    """Checks everything before the first forward. `settings` are the fields of a Request but for the prompts, and
    `constraint` as `generate` takes it."""
    recipe = Recipe.of(method, options)
    cards = recipe.cards()
    target = model if isinstance(model, Loaded) else load(model)
    _check_needs(target, cards)
    scorers = {role: scorer for role, scorer in (models or {}).items() if any(role in card.scorers for card in cards)}
    others = _check_models(target, cards, {role: other for role, other in (models or {}).items() if role not in scorers})
    ids = tuple(encode(target, prompt, index) for index, prompt in enumerate(prompts))
    check_context(target, ids)
    if settings.get("stop") and target.tokenizer is None:
        raise InputError(f"stop is {settings['stop']} but model '{target.name}' has no tokenizer; give stop_ids, or a tokenizer")
    fields = dict(settings)
    constraints = _constraints(fields.pop("constraint", None), len(ids))
    request = Request(prompts=ids, eos_ids=target.eos_ids, constraints=constraints, **fields)
    protocols = {"target": target.protocol, **{role: other.protocol for role, other in others.items()}}
    return Job(target, recipe, request, protocols, _compile(target, request), _check_scorers(target, cards, scorers))


def fits(target: Any, method: str) -> bool:
    """Whether the model has what the method needs, and the weights that the method brings by default are for this model."""
    loaded = target if isinstance(target, Loaded) else load(target)
    has = loaded.protocol.capabilities
    if any(has.missing(card.needs) for card in Recipe.of(method).cards()):
        return False
    try:
        for check in build_parts(Recipe.of(method)).fits:
            check(has)
    except CapabilityError:
        return False
    return True


def _compile(target: Loaded, request: Request) -> list[Any]:
    """The constraint of every prompt over the target's vocabulary, each grammar compiled once; [] where all are free."""
    if not request.constraints:
        return []
    if request.ignore_eos:
        raise ConstraintError("ignore_eos is True with a constraint, whose texts end with the model's end of text; leave it out")
    if target.tokenizer is None:
        raise ConstraintError(f"a constraint was given but model '{target.name}' has no tokenizer; give one to load()")
    vocabulary = vocabulary_of(target.tokenizer, target.protocol.capabilities.vocabulary, target.eos_ids)
    compiled = {grammar: compile_grammar(grammar, vocabulary) for grammar in set(request.constraints) if grammar is not None}
    return [None if grammar is None else compiled[grammar] for grammar in request.constraints]


def _constraints(given: Any, prompts: int) -> tuple[Grammar | None, ...]:
    every = tuple(given) if isinstance(given, (list, tuple)) else (given,) * prompts
    wrong = next((one for one in every if one is not None and not isinstance(one, Grammar)), None)
    if wrong is not None:
        raise ConstraintError(
            f"constraint is {wrong!r}; give what treewright.json_schema, regex, grammar or choice return, or a list of those"
        )
    return every if any(every) else ()


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
        raise InputError(
            f"no method in {'+'.join(card.name for card in cards)} uses a model for the role '{unused[0]}'; "
            f"roles used: {', '.join(needed) or 'none'}"
        )
    others = {role: other if isinstance(other, Loaded) else load(other) for role, other in models.items()}
    for role, other in others.items():
        theirs, ours = other.protocol.capabilities.vocabulary, target.protocol.capabilities.vocabulary
        if theirs != ours:
            raise CapabilityError(
                f"model '{other.name}' for the role '{role}' has a vocabulary of {theirs} tokens and the target "
                f"'{target.name}' one of {ours}; give a model with the target's tokenizer"
            )
    return others


def _check_scorers(target: Loaded, cards: Sequence[Card], scorers: Mapping[str, Any]) -> dict[str, Scorer]:
    needed = {role: card.name for card in cards for role in card.scorers}
    for role, method in needed.items():
        if role not in scorers:
            raise InputError(
                f"method '{method}' needs a judge for the role '{role}'; give models={{'{role}': f}}, where f(prompt, text) "
                "is a number"
            )
        if target.tokenizer is None:
            raise InputError(f"the role '{role}' judges texts but model '{target.name}' has no tokenizer; give one to load()")
        if not callable(scorers[role]):
            raise InputError(
                f"the role '{role}' is a {type(scorers[role]).__name__}; give a function of a prompt and a continuation"
            )
    return {role: _Function(scorers[role]) for role in needed}


class _Function:
    """A function of the user's as a `Scorer`."""

    def __init__(self, function: Callable[[str, str], float]) -> None:
        self._function = function

    def score(self, prompt: str, texts: Sequence[str]) -> list[float]:
        return [float(self._function(prompt, text)) for text in texts]
