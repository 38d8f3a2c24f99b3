"""The constraints of a request over the target's vocabulary: found faulty before the first forward, fresh for each run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from treewright.core.card import Card
from treewright.core.errors import CompositionError, ConstraintError
from treewright.core.grammar import Check, Constraint, Grammar
from treewright.core.request import Request
from treewright.core.roles import Constraint as ConstraintPart
from treewright.models.loading import Loaded
from treewright.parts.constrain.check import BlackBox, needs_sampler
from treewright.parts.constrain.grammar import GrammarMasks, compile_grammar, vocabulary_of


@dataclass(frozen=True, slots=True)
class Compiled:
    """What each prompt is held to. matchers: grammars at their first token, None where a prompt has none; checks: black boxes
    likewise. vocabulary: what the target's tokens spell, None where nobody asks. ends: ids that end a text. size: the target's
    tokens."""

    matchers: list[Any]
    checks: list[Check | None]
    vocabulary: Any
    ends: tuple[int, ...]
    size: int

    def parts(self) -> tuple[ConstraintPart, ...]:
        """Fresh roles, grammars first: they are the cheaper question."""
        roles: list[ConstraintPart] = []
        if any(matcher is not None for matcher in self.matchers):
            roles.append(GrammarMasks(self.matchers, self.ends, self.size))
        if any(self.checks):
            roles.append(BlackBox(self.checks, self.vocabulary, self.ends, self.size))
        return tuple(roles)


def read_constraints(given: Any, prompts: int) -> tuple[Constraint | None, ...]:
    """What `generate` takes as one constraint for each prompt; () where all are free. Raises ConstraintError for what is none."""
    every = tuple(given) if isinstance(given, (list, tuple)) else (given,) * prompts
    wrong = next((one for one in every if one is not None and not isinstance(one, (Grammar, Check))), None)
    if wrong is not None:
        raise ConstraintError(
            f"constraint is {wrong!r}; give what treewright.json_schema, regex, grammar, choice or check return, or a list of "
            "those"
        )
    if len(every) != prompts:
        raise ConstraintError(f"constraint is a list of {len(every)}; give one, or one for each of {prompts} prompts")
    return every if any(every) else ()


def compile_constraints(target: Loaded, request: Request, cards: Sequence[Card]) -> Compiled | None:
    """The constraint of every prompt over the target's vocabulary, each grammar compiled once; None where all are free.

    Raises ConstraintError where a model or a setting rules a constraint out, CompositionError for a check that none of the
    methods can ask.
    """
    if not request.constraints:
        return None
    if request.ignore_eos:
        raise ConstraintError("ignore_eos is True with a constraint, whose texts end with the model's end of text; leave it out")
    checks = [one if isinstance(one, Check) else None for one in request.constraints]
    first = next((check for check in checks if check is not None), None)
    if first is not None and not any("draw" in card.roles for card in cards):
        raise CompositionError(needs_sampler(first))
    grammars = [one.within if isinstance(one, Check) else one for one in request.constraints]
    size = target.protocol.capabilities.vocabulary
    vocabulary: Any = None
    if any(grammars) or any(check is not None and check.reads != "tokens" for check in checks):
        if target.tokenizer is None:
            raise ConstraintError(f"a constraint was given but model '{target.name}' has no tokenizer; give one to load()")
        vocabulary = vocabulary_of(target.tokenizer, size, target.eos_ids)
    compiled = {grammar: compile_grammar(grammar, vocabulary) for grammar in set(grammars) if grammar is not None}
    matchers = [None if grammar is None else compiled[grammar] for grammar in grammars]
    return Compiled(matchers, checks, vocabulary, target.eos_ids, size)
