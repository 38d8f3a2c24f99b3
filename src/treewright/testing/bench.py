"""The bench on which laws run: exact tables, a ragged batch, a constraint, penalties, stops, cold and warm memory."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from treewright.api import build_parts
from treewright.core.claims import ABSENT
from treewright.core.errors import CapabilityError
from treewright.core.randomness import Keyed
from treewright.core.recipe import Recipe
from treewright.core.request import Request, Sampling
from treewright.core.roles import Outcome, Parts, Round
from treewright.core.session import Model
from treewright.engine.loop import Engine
from treewright.models.tables import AnyOrderTable, Table
from treewright.testing.enumerate import Case
from treewright.testing.reports import LawBroken

PROMPTS = ((1,), (0, 2, 1, 0, 2), (2, 1, 0))
"""Three rows of other lengths; the second repeats itself, so that drafters that look back find something."""

CLAIMS = 6
"""Columns a row may use in a round: enough for siblings and for chains, few enough to enumerate."""

CHAIN = "speculative_sampling"
"""What stands beside a controller that brings no drafter: it asks after each draft."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What one case of a law asks of the engine. `row` is the row whose law is compared; `tokens` are emitted at most;
    `fenced` puts the constraint on; `warm` starts from what the method learned on other text."""

    name: str
    sampling: Sampling
    row: int = 1
    tokens: int = 3
    vocabulary: int = 3
    stop_ids: tuple[int, ...] = ()
    min_new_tokens: int = 0
    fenced: bool = True
    warm: bool = False


SETTINGS = (
    Setting(
        "constraint and penalties",
        Sampling(0.8, repetition_penalty=1.3, presence_penalty=0.4, frequency_penalty=0.3),
    ),
    Setting(
        "top-k, bias, stop", Sampling(1.2, top_k=2, logit_bias=((0, 0.5),)), row=0, stop_ids=(2,), min_new_tokens=2, fenced=False
    ),
    Setting("top-p, penalty, warm memory", Sampling(1.0, top_p=0.85, repetition_penalty=1.2), row=2, warm=True),
    Setting("min-p, typical", Sampling(0.9, min_p=0.12, typical_p=0.95), row=1, vocabulary=4, fenced=False),
)
GREEDY = Sampling(0.0, repetition_penalty=1.3, presence_penalty=0.4, frequency_penalty=0.1)


class Fence:
    """The constraint of the bench: after each continuation one token is forbidden, another one after each."""

    def __init__(self, vocabulary: int) -> None:
        self._vocabulary = vocabulary

    def mask(self, row: Hashable, continuation: np.ndarray) -> np.ndarray:
        value = 0
        for token in continuation.tolist():
            value = (2 * value + token + 1) % 9973
        allowed = np.ones(self._vocabulary, bool)
        allowed[value % self._vocabulary] = False
        return allowed

    def allowed(self, row: Hashable, continuation: np.ndarray, token: int) -> bool:
        return bool(self.mask(row, continuation)[token])


class Auditor:
    """An observer that breaks the law if it is told of tokens that did not become text, or the other way round."""

    prompt_top = 0

    def read_prompts(self, round: Round, prompts: Sequence[Sequence[int]], top: np.ndarray) -> None:
        """Nothing to check."""

    def observe(self, outcome: Outcome) -> None:
        text, forest, verdict = outcome.round.text, outcome.round.forest, outcome.verdict
        if verdict.rows is not None or forest.slot is not None:
            return
        for row, emitted in enumerate(outcome.emitted):
            written = text.of(row)[len(text.of(row)) - len(emitted) :].tolist()
            told = [int(forest.token[row, column]) for column in verdict.paths[row]]
            told += [verdict.extra[row]] if verdict.extra[row] >= 0 else []
            told += [token for _, token in verdict.written[row]] if verdict.written is not None else []
            if written != emitted or told != emitted:
                raise LawBroken(
                    f"row {row}: observers heard of a verdict for {told} and of tokens {emitted}, the text ends in "
                    f"{written}; a verdict must be cut at stops and limits before anyone learns from it"
                )
            if ABSENT in emitted:
                raise LawBroken(f"row {row}: an absent claim became text: {emitted}")


@dataclass(frozen=True, slots=True)
class Bench:
    """Builds the cases of a law for one way of making parts.

    make_parts: fresh parts of what is tested. roles: models it needs beside the target. likeness: how like the target
    those are. claims: columns a row may use in a round.
    """

    make_parts: Callable[[], Parts]
    roles: tuple[str, ...] = ()
    likeness: float = 0.5
    claims: int = CLAIMS
    engine: type[Engine] = Engine

    def models(self, vocabulary: int, seed: int) -> dict[str, Model]:
        """A target table, and for each role a table that is like it."""
        target = Table(vocabulary, seed, sharpness=1.2)
        others = {
            role: Table(vocabulary, seed + 100 + number, like=target, likeness=self.likeness)
            for number, role in enumerate(self.roles)
        }
        return {"target": target, **others}

    def case(self, setting: Setting, seed: int = 1) -> Case:
        """The case of one setting on the tables of one seed."""
        request = Request(
            PROMPTS, max_new_tokens=setting.tokens, sampling=setting.sampling, stop_ids=setting.stop_ids,
            min_new_tokens=setting.min_new_tokens,
        )  # fmt: skip
        fences = (Fence(setting.vocabulary),) if setting.fenced else ()

        def make() -> Parts:
            return self.make_parts().join(Parts(constrain=fences, observe=(Auditor(),)))

        case = Case(
            request, self.models(setting.vocabulary, seed), make, setting.row,
            columns=self.claims * len(PROMPTS), engine=self.engine,
        )  # fmt: skip
        return warmed(case) if setting.warm else case


def warmed(case: Case) -> Case:
    """The same case, begun with the memory that a run over other prompts left behind."""
    prompts = tuple(prompt[::-1] + prompt for prompt in case.request.prompts)
    learned: dict[Any, Any] = {}
    request = replace(case.request, prompts=prompts, max_new_tokens=8, stop_ids=(), min_new_tokens=0)
    for _ in replace(case, request=request).open(Keyed(23), learned).run():
        pass
    return replace(case, memories=learned)


def with_drafter(method: str) -> str:
    """The recipe as it can run: what says when to stop drafting and drafts nothing itself stands beside a chain of drafts."""
    recipe = Recipe.of(method)
    cards = recipe.cards()
    alone = any(card.needs_drafter for card in cards) and not any("propose" in card.roles for card in cards)
    return f"{CHAIN}+{recipe.name}" if alone else recipe.name


def parts_of(
    method: str, options: Mapping[str, Any] | None, order: str = "left_to_right"
) -> tuple[Callable[[], Parts], tuple[str, ...]]:
    """A maker of the method's fresh parts, and the model roles it needs; a card's options for tables hold unless `options`
    says otherwise, and a controller has a drafter beside it (`with_drafter`). Raises as `Recipe.of` does, and CapabilityError
    where exact tables cannot do what the method needs."""
    cards = Recipe.of(with_drafter(method)).cards()
    own = {f"{card.name}.{name}": value for card in cards for name, value in card.tables}
    named = {f"{owner}.{name}": value for owner, name, value in Recipe.of(method, options).options}
    recipe = Recipe.of(with_drafter(method), own | named)
    for card in cards:
        table = Table(2, 0) if order == "left_to_right" else AnyOrderTable(2, 0)
        missing = table.capabilities.missing(card.needs)
        if missing:
            raise CapabilityError(
                f"method '{card.name}' needs {', '.join(missing)}, which exact tables do not have; test it on a model"
            )
    return lambda: build_parts(recipe), tuple(sorted(recipe.roles()))
