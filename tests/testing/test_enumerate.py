"""The enumeration itself: probabilities by hand, keyed noise asked twice, agreement with sampling."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from treewright.core.randomness import ACCEPT, DRAFT, DRAW, Keyed
from treewright.core.request import Request, Sampling
from treewright.core.roles import Parts
from treewright.models.tables import Table
from treewright.parts.verify.sample_then_match import SampleThenMatch
from treewright.testing.bench import SETTINGS, Bench, parts_of
from treewright.testing.definition import plain_law, warp
from treewright.testing.enumerate import Case, Outcomes, exact_law, outcomes, total_variation
from treewright.testing.reports import LawBroken

ROW = (0, 0)


def play(ask: object) -> dict[object, float]:
    """All answers of `ask(randomness)` with their probabilities."""
    randomness, law = Outcomes(ROW, Keyed(1)), {}
    while True:
        randomness.begin()
        answer = ask(randomness)  # type: ignore[operator]
        law[answer] = law.get(answer, 0.0) + randomness.probability
        if not randomness.advance():
            return law


def test_two_independent_draws_multiply() -> None:
    weights = np.array([1.0, 0.0, 3.0])
    law = play(lambda chance: (chance.index(weights, ROW, 1, DRAW), chance.index(weights, ROW, 2, DRAW)))
    assert law == pytest.approx({(0, 0): 1 / 16, (0, 2): 3 / 16, (2, 0): 3 / 16, (2, 2): 9 / 16})


def test_noise_that_is_asked_twice_is_one_number() -> None:
    first, second = np.array([0.5, 0.5]), np.array([0.25, 0.75])
    law = play(lambda chance: (chance.index(first, ROW, 1, DRAW), chance.index(second, ROW, 1, DRAW)))
    assert law == pytest.approx({(0, 0): 0.25, (0, 1): 0.25, (1, 1): 0.5})


def test_acceptance_and_a_draw_of_its_stream_share_their_noise_and_other_streams_do_not() -> None:
    half = np.array([0.5, 0.5])
    shared = play(lambda chance: (chance.accept(0.5, ROW, 1), chance.index(half, ROW, 1, ACCEPT)))
    assert shared == pytest.approx({(True, 0): 0.5, (False, 1): 0.5})
    apart = play(lambda chance: (chance.accept(0.5, ROW, 1), chance.index(half, ROW, 1, DRAFT)))
    assert len(apart) == 4


def test_certain_decisions_do_not_branch_and_other_rows_are_not_enumerated() -> None:
    def ask(chance: Outcomes) -> tuple[object, ...]:
        other = chance.index(np.ones(5), (1, 0), 1, DRAW)
        return chance.accept(1.0, ROW, 1), chance.accept(0.0, ROW, 2), chance.index(np.array([0, 1.0]), ROW, 3, DRAW), other

    assert play(ask) == {(True, False, 1, Keyed(1).index(np.ones(5), (1, 0), 1, DRAW)): 1.0}


def test_a_draw_from_nothing_is_refused() -> None:
    with pytest.raises(LawBroken, match="positive sum"):
        play(lambda chance: chance.index(np.zeros(3), ROW, 1, DRAW))


def case(method: str, **options: object) -> Case:
    make, roles = parts_of(method, options)
    return Bench(make, roles).case(SETTINGS[0])


def test_laws_sum_to_one() -> None:
    for law in (plain_law(case("plain")), exact_law(case("speculative_sampling", tokens=2))):
        assert sum(law.values()) == pytest.approx(1.0, abs=1e-12)


def test_plain_decoding_on_a_table_by_hand() -> None:
    table = Table(3, 4)
    request = Request(((1, 2),), max_new_tokens=2, sampling=Sampling(1.0))
    run = Case(request, {"target": table}, lambda: Parts(verify=SampleThenMatch()))
    softmax = lambda prefix: np.exp(table.logits(prefix)) / np.exp(table.logits(prefix)).sum()  # noqa: E731
    by_hand = {(a, b): softmax([1, 2])[a] * softmax([1, 2, a])[b] for a in range(3) for b in range(3)}
    assert plain_law(run) == pytest.approx(by_hand)
    assert exact_law(run) == pytest.approx(by_hand)


def test_the_enumerated_law_is_what_sampling_shows() -> None:
    run = case("speculative_sampling", tokens=2)
    law = exact_law(run)
    drawn = Counter(run.play(Keyed(seed))[0] for seed in range(600))
    sampled = {tokens: count / 600 for tokens, count in drawn.items()}
    assert set(sampled) <= set(law)
    assert total_variation(law, sampled) < 0.1


def test_too_many_outcomes_are_refused_with_advice() -> None:
    with pytest.raises(ValueError, match="more than 3 outcomes; give fewer tokens"):
        list(outcomes(case("plain"), most=3))


def test_warpers_by_hand() -> None:
    logits = [float(np.log(weight)) for weight in (0.5, 0.3, 0.15, 0.05)]
    assert warp(logits, Sampling(1.0, top_k=2)) == pytest.approx([0.625, 0.375, 0, 0])
    assert warp(logits, Sampling(1.0, top_p=0.6)) == pytest.approx([0.625, 0.375, 0, 0])
    assert warp(logits, Sampling(1.0, min_p=0.2)) == pytest.approx([10 / 19, 6 / 19, 3 / 19, 0])
    assert warp(logits, Sampling(0.5)) == pytest.approx(list(np.array([0.25, 0.09, 0.0225, 0.0025]) / 0.365))
    assert warp(logits, Sampling(0.0)) == [1.0, 0.0, 0.0, 0.0]


def test_total_variation_of_disjoint_laws_is_one() -> None:
    assert total_variation({(1,): 1.0}, {(2,): 1.0}) == 1.0
