"""Repetition on hand examples; ratios that are the raw seconds' own; intervals that contain them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from treewright.bench.statistics import Cost, repetition, seconds_per_token, speed_ratio


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        ([], 0.0),
        ([1, 2, 3], 0.0),
        ([1, 2, 3, 4, 5, 6, 7], 0.0),
        ([1, 1, 1, 1, 1, 1, 1], 1 - 1 / 4),
        ([1, 2, 1, 2, 1, 2, 1, 2], 1 - 2 / 5),
        ([1, 2, 3, 4, 1, 2, 3, 4], 1 - 4 / 5),
        ([1, 2, 3, 4, 9, 1, 2, 3, 4], 1 - 5 / 6),
    ],
)
def test_repetition_of_hand_examples(tokens: list[int], expected: float) -> None:
    assert repetition(tokens) == pytest.approx(expected, abs=1e-12)


def test_repetition_takes_other_gram_sizes() -> None:
    assert repetition([1, 2, 1, 2, 1], gram=2) == pytest.approx(1 - 2 / 4)


def test_a_ratio_is_that_of_the_totals() -> None:
    reference = [Cost(2.0, 10), Cost(4.0, 10)]
    subject = [Cost(1.0, 20), Cost(1.0, 10)]
    assert seconds_per_token(reference) == pytest.approx(6 / 20)
    assert speed_ratio(reference, subject).value == pytest.approx((6 / 20) / (2 / 30))


def test_one_unit_has_no_interval() -> None:
    found = speed_ratio([Cost(2.0, 4)], [Cost(1.0, 4)])
    assert (found.value, found.low, found.high) == (2.0, None, None)


def test_units_that_do_not_match_are_refused() -> None:
    with pytest.raises(ValueError, match="2 and 1 units"):
        speed_ratio([Cost(1.0, 1)] * 2, [Cost(1.0, 1)])


costs = st.builds(Cost, st.floats(0.01, 10), st.integers(1, 100))


@given(st.lists(st.tuples(costs, costs), min_size=4, max_size=12))
def test_an_interval_contains_its_ratio_and_is_paired(pairs: list[tuple[Cost, Cost]]) -> None:
    reference, subject = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    found = speed_ratio(reference, subject)
    assert found.low is not None and found.high is not None
    assert found.low - 1e-9 <= found.value <= found.high + 1e-9
    same = speed_ratio(subject, subject)
    assert (same.value, same.low, same.high) == (1.0, 1.0, 1.0)


def test_an_interval_narrows_with_more_units() -> None:
    reference = [Cost(1.0 + 0.2 * (n % 5), 10) for n in range(200)]
    subject = [Cost(0.5 + 0.1 * (n % 3), 10) for n in range(200)]
    few, many = speed_ratio(reference[:10], subject[:10]), speed_ratio(reference, subject)
    assert few.high - few.low > 2 * (many.high - many.low) > 0  # type: ignore[operator]
