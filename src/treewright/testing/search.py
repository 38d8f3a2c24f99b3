"""Laws of searches: beam search and its groups by definition, and draws of whole texts without replacement.

The definitions here call neither the engine nor the search's own parts: tables, `next_law`, and sorted lists.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from treewright.core.randomness import Keyed
from treewright.core.recipe import Recipe
from treewright.core.request import Request, Sampling
from treewright.core.selection import Candidate
from treewright.engine.loop import Engine
from treewright.testing.bench import PROMPTS, Bench, Setting, parts_of
from treewright.testing.definition import next_law
from treewright.testing.enumerate import Case, Tokens
from treewright.testing.reports import CaseReport, Coverage, LawBroken, LawReport
from treewright.testing.statistics import chi_square

TOLERANCE = 1e-9
LEAST_P_VALUE = 1e-4
MOST_DEVIATIONS = 5.0
"""How many standard errors an unbiased mean may lie off; the seeds are fixed, so a law holds or does not."""

PENALISED = Sampling(0.0, repetition_penalty=1.3, presence_penalty=0.4, frequency_penalty=0.1)
SETTINGS = (
    Setting("temperature 0", Sampling(0.0), tokens=5, vocabulary=4, stop_ids=(3,), fenced=False),
    Setting("constraint, penalties, stops", PENALISED, tokens=5, vocabulary=4, stop_ids=(1, 3), min_new_tokens=2),
    Setting("temperature 0.7, top-k, constraint", Sampling(0.7, top_k=3), tokens=4, vocabulary=5, stop_ids=(2,)),
)
DRAWN = (
    Setting("temperature 0, stop", Sampling(0.0), tokens=2, vocabulary=3, stop_ids=(0,), fenced=False),
    Setting("constraint, top-p, penalties", Sampling(1.2, top_p=0.9, presence_penalty=0.4), tokens=3, vocabulary=4),
)

Hypothesis = tuple[Tokens, float]
"""New tokens and the log-probability of all of them."""


@dataclass(frozen=True, slots=True)
class _Search:
    """The options of a beam search, read from a recipe: what it lacks has the value that makes no difference."""

    beams: int
    length_penalty: float
    early_stopping: bool | str
    groups: int
    strength: float

    def score(self, hypothesis: Hypothesis) -> float:
        return hypothesis[1] / max(1, len(hypothesis[0])) ** self.length_penalty


def equals_beam(
    method: str, options: Mapping[str, Any] | None = None, *, engine: type[Engine] = Engine, tables: int = 4
) -> LawReport:
    """The method returns the hypotheses of beam search, best first, with their log-probabilities.

    Run through the engine on exact tables over a ragged batch of three rows, with a constraint, penalties, end ids, a least
    length, and above temperature 0 under top-k, asking for as many answers as there are beams; compared with beam search
    written out over sorted lists of all children. The options `beams`, `length_penalty` and `early_stopping` are the
    recipe's; a method without the last is compared with "never". tables: random tables of each setting.

    Raises LawBroken; CapabilityError where exact tables lack what the method needs. Cost: about a second.
    """
    return _equals("equals_beam", method, replace(_search(method, options), groups=1, strength=0.0), options, engine, tables)


def equals_beam_in_groups(
    method: str, options: Mapping[str, Any] | None = None, *, engine: type[Engine] = Engine, tables: int = 4
) -> LawReport:
    """The method returns the hypotheses of beam search in groups, each of which ranks children by log-probability less
    `strength` for every beam of an earlier group that took the same token at this step. As `equals_beam` otherwise."""
    return _equals("equals_beam_in_groups", method, _search(method, options), options, engine, tables)


def without_replacement(
    method: str, options: Mapping[str, Any] | None = None, *, draws: int = 800, texts: int = 2, seed: int = 1
) -> LawReport:
    """The method draws whole texts without replacement, in order, and weighs them without bias.

    On exact tables, with and without a constraint, a penalty and warpers: the ordered `texts` first answers are compared with
    successive draws from the enumerated law by a chi-square test over `draws` runs of fixed seeds, and for every text the
    mean of exp(log_weight) over the runs that returned it (0 for the others) with its probability, to five standard errors
    (from two texts on: the weight of a single one has no variance, so its mean says nothing).

    Raises LawBroken. Cost: `draws` runs of a few rounds for each of two settings, some seconds.
    """
    make, roles = parts_of(method, options)
    cases = []
    for setting in DRAWN:
        case = Bench(make, roles).case(setting, seed)
        request = replace(case.request, prompts=(PROMPTS[setting.row],) * draws, samples=texts, batch_rows=300)
        case = replace(case, request=request, row=0)
        law = _texts(case)
        answers = case.answers(Keyed(seed))
        cases.append(_check_draws(method, setting.name, law, answers, texts))
    return LawReport("without_replacement", method, MOST_DEVIATIONS, cases)


def _check_draws(method: str, name: str, law: Mapping[Tokens, float], answers: list[list[Candidate]], texts: int) -> CaseReport:
    ordered = {
        chosen: math.prod(law[text] / (1.0 - sum(law[before] for before in chosen[:place])) for place, text in enumerate(chosen))
        for chosen in itertools.permutations(law, texts)
    }  # fmt: skip
    test = chi_square([tuple(tuple(answer.tokens) for answer in drawn) for drawn in answers], ordered)
    if test.p_value < LEAST_P_VALUE:
        raise LawBroken(
            f"{method}, {name}: the first {texts} texts of {len(answers)} draws do not follow successive draws without "
            f"replacement: chi-square {test.statistic:.4g} over {test.cells} cells, p = {test.p_value:.3g} (allowed "
            f"{LEAST_P_VALUE:g}), {test.impossible} impossible draws"
        )
    worst = 0.0
    for text, probability in law.items() if texts > 1 else ():
        weights = [sum(math.exp(a.log_weight) for a in drawn if tuple(a.tokens) == text) for drawn in answers]
        mean = sum(weights) / len(weights)
        error = math.sqrt(sum((weight - mean) ** 2 for weight in weights)) / len(weights)
        deviation = abs(mean - probability) / max(error, 1e-12) if max(weights) > 0 else 0.0
        if deviation > MOST_DEVIATIONS:
            raise LawBroken(
                f"{method}, {name}: the weights of {text} have the mean {mean:.4g} over {len(answers)} draws, {deviation:.1f} "
                f"standard errors from its probability {probability:.4g} (allowed {MOST_DEVIATIONS:g})"
            )
        worst = max(worst, deviation)
    return CaseReport(name, worst, Coverage(outcomes=len(answers), rounds=1))


def _texts(case: Case) -> dict[Tokens, float]:
    """The probability of every whole text under the law that is searched."""
    law: dict[Tokens, float] = {}
    waiting: list[Hypothesis] = [((), 1.0)]
    logarithms = _logarithms(case)
    while waiting:
        new, probability = waiting.pop()
        for token, log_probability in enumerate(logarithms(new)):
            if log_probability > -math.inf:
                child = (*new, token), probability * math.exp(log_probability)
                ended = _ends(case.request, child[0]) or len(child[0]) == case.request.max_new_tokens
                law.update([child]) if ended else waiting.append(child)
    return law


def _search(method: str, options: Mapping[str, Any] | None) -> _Search:
    recipe = Recipe.of(method, options)
    known = {option.name: option.default for card in recipe.cards() for option in card.options}
    known |= {name: value for _, name, value in recipe.options}
    return _Search(
        known["beams"], known["length_penalty"], known.get("early_stopping", "never"), known.get("groups", 1),
        known.get("strength", 0.0),
    )  # fmt: skip


def _equals(
    law: str, method: str, search: _Search, options: Mapping[str, Any] | None, engine: type[Engine], tables: int
) -> LawReport:
    make, roles = parts_of(method, options)
    bench, cases = Bench(make, roles, engine=engine), []
    for setting, seed in itertools.product(SETTINGS, range(1, tables + 1)):
        case = bench.case(setting, seed)
        case = replace(case, request=replace(case.request, samples=search.beams))
        coverage, worst = Coverage(), 0.0
        for row, answers in enumerate(case.answers(Keyed(seed))):
            expected = _beam(replace(case, row=row), search)
            found = [(tuple(answer.tokens), answer.log_weight) for answer in answers]
            close = [math.isclose(a, b, abs_tol=TOLERANCE) for (_, a), (_, b) in zip(found, expected, strict=False)]
            if [tokens for tokens, _ in found] != [tokens for tokens, _ in expected] or not all(close):
                raise LawBroken(
                    f"{method}, {setting.name}, table {seed}: after prompt {PROMPTS[row]} it found {found}, and beam search by "
                    f"definition finds {expected} ({search})"
                )
            coverage.outcomes += len(found)
            worst = max([worst, *(abs(a - b) for (_, a), (_, b) in zip(found, expected, strict=True) if a != b)])
        cases.append(CaseReport(f"{setting.name}, table {seed}", worst, coverage))
    return LawReport(law, method, TOLERANCE, cases)


@dataclass(slots=True)
class _Group:
    beams: list[Hypothesis] = field(default_factory=lambda: [((), 0.0)])
    ended: list[Hypothesis] = field(default_factory=list)
    dead: list[Hypothesis] = field(default_factory=list)


def _beam(case: Case, search: _Search) -> list[Hypothesis]:
    """Beam search written out: all children of all beams of a group, sorted; what ended, what goes on, when it is enough."""
    groups, width = [_Group() for _ in range(search.groups)], search.beams // search.groups
    logarithms = _logarithms(case)
    for length in range(1, case.request.max_new_tokens + 1):
        taken: Counter[int] = Counter()
        for group in groups:
            children = [
                (total - search.strength * taken[token], (*new, token), total)
                for new, before in group.beams
                for token, total in ((token, before + logp) for token, logp in enumerate(logarithms(new)))
                if total > -math.inf
            ]
            best = [(new, total) for _, new, total in sorted(children, key=lambda child: (-child[0], child[1]))]
            last = length == case.request.max_new_tokens
            stopped = [child for child in best[:width] if last or _ends(case.request, child[0])]
            if group.beams and not best and not group.ended:
                group.dead.append((max(group.beams, key=lambda beam: beam[1])[0], -math.inf))
            group.ended = sorted([*group.ended, *stopped], key=search.score, reverse=True)[:width]
            on = [] if last else [child for child in best if not _ends(case.request, child[0])][:width]
            taken.update(new[-1] for new, _ in (*on, *(child for child in stopped if child not in on)))
            group.beams = [] if _enough(search, group, on, case.request.max_new_tokens, width) else on
    ended = sorted({hypothesis for group in groups for hypothesis in group.ended}, key=search.score, reverse=True)
    return ended or [group.dead[0] for group in groups if group.dead][:1]


def _enough(search: _Search, group: _Group, on: list[Hypothesis], most: int, width: int) -> bool:
    if not on or len(group.ended) < width:
        return not on
    reach = most if search.early_stopping == "never" and search.length_penalty > 0 else len(on[0][0])
    return search.early_stopping is True or on[0][1] / reach**search.length_penalty <= search.score(group.ended[-1])


def _ends(request: Request, new: Tokens) -> bool:
    return new[-1] in request.ends and len(new) >= request.min_new_tokens


def _logarithms(case: Case) -> Callable[[Tokens], list[float]]:
    """The law that is searched: the request's, at temperature 0 the softmax of its logits."""
    parts, sampling = case.make_parts(), case.request.sampling
    read = replace(case, request=replace(case.request, sampling=replace(sampling, temperature=sampling.temperature or 1.0)))
    return lambda new: [math.log(chance) if chance > 0 else -math.inf for chance in next_law(read, parts, new)]
