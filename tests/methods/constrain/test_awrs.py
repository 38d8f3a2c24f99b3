"""AWRS against enumeration: the token's law, the weight's mean given the token, the number of questions; and what it goes
together with."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import permutations

import numpy as np
import pytest

import treewright
from treewright import laws
from treewright.core.errors import CompositionError, InputError
from treewright.core.registry import methods
from treewright.core.request import Sampling
from treewright.core.roles import Parts
from treewright.methods.constrain.awrs import AdaptiveRejection, Config, parts
from treewright.models.loading import load
from treewright.models.tables import Table
from treewright.testing.bench import PROMPTS, Bench, Fence, Setting, parts_of
from treewright.testing.weights import BlackBoxed

LAWS = [
    ([5, 3, 1, 1], {1, 3}), ([1, 1, 1, 1, 6], {0, 2, 4}), ([2, 7, 1], {2}), ([1, 2, 3, 4], {0, 1, 2, 3}), ([4, 0, 2, 3], {0, 2}),
]  # fmt: skip


def orders(weights: list[int]):
    """Every order in which tokens can come without replacement, and its probability."""
    support = [token for token, weight in enumerate(weights) if weight]
    for order in permutations(support):
        chance, left = Fraction(1), sum(weights)
        for token in order:
            chance *= Fraction(weights[token], left)
            left -= weights[token]
        yield order, chance


def drawn(weights: list[int], allowed: set[int], order: tuple[int, ...], config: Config) -> tuple[int, float, list[int]]:
    """What the sampler makes of one order: token, weight, tokens asked."""
    asked: list[int] = []
    support = [token for token, weight in enumerate(weights) if weight]

    def check(token: int) -> bool:
        asked.append(token)
        return token in allowed

    law = np.array(weights) / sum(weights)
    token, weight = AdaptiveRejection(config).draw(law, check, lambda left, trial: support.index(order[trial]))
    return token, math.exp(weight), asked


@pytest.mark.parametrize("looks", [1, 2, 9])
@pytest.mark.parametrize(("weights", "allowed"), LAWS)
def test_token_and_weight_by_enumeration(weights, allowed, looks):
    mass = Fraction(sum(weights[token] for token in allowed), sum(weights))
    chance_of, weight_of = dict.fromkeys(allowed, Fraction(0)), dict.fromkeys(allowed, 0.0)
    given: dict[tuple, list] = {}
    for order, chance in orders(weights):
        token, weight, asked = drawn(weights, allowed, order, Config(looks=looks))
        assert len(set(asked)) == len(asked)
        chance_of[token] += chance
        weight_of[token] += float(chance) * weight
        given.setdefault((token, frozenset(asked[: asked.index(token)])), []).append((float(chance), weight))
    for token in allowed:
        assert chance_of[token] == Fraction(weights[token], sum(weights)) / mass
        assert weight_of[token] == pytest.approx(weights[token] / sum(weights), abs=1e-12)
    for seen in given.values():  # not even what was refused tells the weight's mean
        mean = sum(chance * weight for chance, weight in seen) / sum(chance for chance, _ in seen)
        assert mean == pytest.approx(float(mass), abs=1e-12)
    if len(allowed) == 1 or looks == 9:
        assert all(weight == pytest.approx(float(mass)) for seen in given.values() for _, weight in seen)


@pytest.mark.parametrize(("weights", "allowed"), LAWS)
def test_expected_questions_are_those_of_the_formula(weights, allowed):
    total, mass = sum(weights), sum(weights[token] for token in allowed)
    refused = [weight for token, weight in enumerate(weights) if token not in allowed and weight]
    formula = 1 + sum(Fraction(weight, weight + mass) for weight in refused)
    silent, looking = Fraction(0), Fraction(0)
    for order, chance in orders(weights):
        silent += chance * len(drawn(weights, allowed, order, Config(looks=0))[2])
        looking += chance * len(drawn(weights, allowed, order, Config())[2])
    assert silent == formula <= Fraction(total, mass)
    assert silent <= looking <= silent + 1


def test_the_only_allowed_token_may_be_rarer_than_rounding():
    law = np.array([1.0, 1e-30])
    token, weight = AdaptiveRejection(Config()).draw(law, lambda token: token == 1, lambda left, trial: int(left.argmax()))
    assert token == 1 and weight == pytest.approx(math.log(1e-30))


def test_where_nothing_is_allowed_every_token_of_the_law_is_asked_once_or_as_many_as_the_limit():
    for limit, most in ((None, 3), (2, 2)):
        token, weight, asked = drawn([1, 2, 0, 3], set(), (3, 0, 1), Config(limit=limit))
        assert (token, weight) == (-1, 0.0) and asked == [3, 0, 1][:most]


def test_temperature_zero_asks_in_falling_order():
    logits, asked = np.array([0.5, 3.0, -np.inf, 2.0, 2.0]), []
    for limit, token in ((None, 4), (2, -1)):
        asked.clear()
        found = AdaptiveRejection(Config(limit=limit)).largest(logits, lambda token: asked.append(token) or token == 4)
        assert found == token and asked == [1, 3, 4][:limit]


@pytest.mark.parametrize(
    ("method", "options"),
    [("awrs", {"looks": 0}), ("token_recycling+awrs", {"token_recycling.k": 2, "nodes": 3, "looks": 0})],
)
def test_the_law_is_that_of_a_mask_though_there_is_none(method, options):
    report = laws.lazily_constrained(method, options)
    assert report.worst < 1e-9 and report.total("accepted") > 0


@pytest.mark.parametrize("options", [{}, {"looks": 2}])
def test_weights_are_unbiased(options):
    assert laws.properly_weighted("awrs", options).total("outcomes") > 100


@pytest.mark.parametrize("wrong", [{"looks": 0}, {"limit": 1}])
def test_the_law_of_weights_can_be_broken(wrong):
    with pytest.raises(laws.LawBroken):
        laws.properly_weighted("awrs", wrong)


SMALL = {
    "token_recycling": {"k": 2, "nodes": 4}, "prompt_lookup": {"tokens": 2}, "jacobi": {"block": 2},
    "lookahead": {"level": 3, "window": 2, "guesses": 1}, "speculative_sampling": {"tokens": 1}, "specinfer": {"expansion": [2]},
}  # fmt: skip


def rows(method: str, temperature: float) -> list[tuple[list[int], float, int]]:
    """Tokens, weight and questions of three ragged rows under a fence without a mask."""
    make, roles = parts_of(method, SMALL.get(method.split("+")[0]))

    def boxed() -> Parts:
        return make().join(Parts(constrain=(BlackBoxed(Fence(5)),)))

    setting = Setting(method, Sampling(temperature, repetition_penalty=1.2), tokens=12, vocabulary=5, fenced=False)
    case = Bench(boxed, roles, claims=8).case(setting, 3)
    engine = case.open(case.elsewhere, {})
    for _ in engine.run():
        pass
    ended = [engine.finished[row, 0] for row in range(len(PROMPTS))]
    return [(row.tokens, row.log_weight, sum(step.checks for step in row.steps)) for row in ended]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("method", [card.name for card in methods() if card.lossless])
def test_a_drafter_changes_neither_tokens_nor_weights_nor_questions(method, temperature):
    """Or, where its verifier needs probabilities that nobody knows, it is refused before anything runs."""
    if parts_of(method, SMALL.get(method))[0]().probabilities and temperature:
        with pytest.raises(CompositionError, match="needs the probabilities of all tokens"):
            rows(f"{method}+awrs", temperature)
        return
    alone, drafted = rows("awrs", temperature), rows(f"{method}+awrs", temperature)
    for (tokens, weight, checks), (same, same_weight, most) in zip(alone, drafted, strict=True):
        assert same == tokens and same_weight == pytest.approx(weight) and len(tokens) == 12
        # What is asked behind the last token that a row may take is thrown away.
        assert checks <= most <= checks + 6
    assert temperature == 0 or len({weight for _, weight, _ in alone}) == len(PROMPTS)


def test_without_a_constraint_it_is_plain_sampling():
    model = load(Table(6, 1))
    ours, plain = (treewright.generate(model, [1, 2], m, temperature=1.0, max_new_tokens=20, seed=4) for m in ("awrs", "plain"))
    assert ours.tokens == plain.tokens and ours.log_weight == 0 and ours.trace.checks_per_token == 0


def no_repeat(tokens: tuple[int, ...]) -> bool:
    """The black box of a user: no token twice in a row."""
    return len(tokens) < 2 or tokens[-1] != tokens[-2]


def test_generate_holds_rows_to_a_check_and_counts_its_questions():
    asked = []
    counted = treewright.check(lambda tokens: bool(asked.append(tokens)) or no_repeat(tokens), reads="tokens")
    settings = dict(temperature=1.0, max_new_tokens=30, constraint=[counted, None])
    results = treewright.generate(load(Table(3, 1)), [[1, 2], [0]], "awrs", **settings)
    held, free = (result.tokens for result in results)
    assert no_repeat_anywhere(held) and not no_repeat_anywhere(free)
    assert results[0].trace.checks_per_token == len(asked) / 30 > 1
    assert results[0].log_evidence == results[0].log_weight < 0


def no_repeat_anywhere(tokens: list[int]) -> bool:
    return all(no_repeat(tuple(tokens[: end + 1])) for end in range(len(tokens)))


def test_a_check_without_awrs_is_refused_before_anything_runs():
    constraint = treewright.check(no_repeat, reads="tokens")
    for method, given in (("plain", {}), ("specinfer", {"models": {"draft": Table(3, 2)}})):
        with pytest.raises(CompositionError, match=r"check no_repeat can only be asked about one token at a time.*awrs"):
            treewright.generate(load(Table(3, 1)), [1], method, constraint=constraint, **given)


@pytest.mark.parametrize("options", [{"looks": -1}, {"limit": 0}])
def test_bad_options_are_named(options):
    with pytest.raises(InputError, match=next(iter(options))):
        parts(Config(**options))
