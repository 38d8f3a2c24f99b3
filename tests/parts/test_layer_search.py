"""The search for layers to leave out: what it tries, what it keeps, and whether its Bayesian trials are better than chance."""

from __future__ import annotations

import numpy as np
import pytest

from treewright.core.layers import LayerPlan
from treewright.parts.control.layer_search import LayerSearch, start_plan


@pytest.mark.parametrize(("depth", "skipped"), [(3, [1]), (4, [1]), (6, [1, 3]), (7, [1, 3, 5]), (8, [1, 3, 5])])
def test_start_leaves_out_every_second_layer_but_the_ends(depth, skipped):
    assert start_plan(depth) == LayerPlan.without(depth, skipped, skipped)


@pytest.mark.parametrize("count", [1, 5, 12])
def test_trials_leave_out_that_many_inner_parts(count):
    search, seen = LayerSearch(8, count), set()
    assert search.next() == start_plan(8)
    for _ in range(60):
        search.tell(search.next(), 0.0)
        plan = search.next()
        assert plan == search.next()
        assert 16 - len(plan.attention) - len(plan.mlp) == count
        assert {0, 7} <= plan.attention and {0, 7} <= plan.mlp
        seen.add(plan)
    assert len(seen) == 1 if count == 12 else len(seen) > 5


def test_any_number_of_parts_where_none_is_given():
    search = LayerSearch(10, every=0)
    sizes = set()
    for _ in range(80):
        search.tell(search.next(), 0.0)
        sizes.add(20 - len(search.next().attention) - len(search.next().mlp))
    assert min(sizes) < 6 and max(sizes) > 10


def test_it_keeps_the_best_and_counts_what_brought_nothing():
    search, plans = LayerSearch(8, 5), []
    for score in (0.2, 0.5, 0.5, 0.1):
        plans.append(search.next())
        search.tell(plans[-1], score)
    assert (search.plan, search.score, search.trials, search.idle) == (plans[1], 0.5, 4, 2)


def test_seeds_give_other_orders_and_one_seed_the_same():
    def order(seed):
        search, found = LayerSearch(12, 6, seed=seed), []
        for trial in range(30):
            found.append(search.next())
            search.tell(found[-1], float(trial % 7))
        return found

    assert order(1) == order(1) != order(2)


def value(plan, weights):
    return sum(weights[layer] for layer in plan.attention) - sum(weights[layer] for layer in plan.mlp)


def test_bayesian_trials_find_better_sets_than_random_ones():
    """Scores are sums over parts, which a Gaussian process over sets can learn."""
    better = 0
    for seed in range(10):
        weights, best = np.random.default_rng(seed).normal(size=16), []
        for every in (0, 2):
            search = LayerSearch(16, 12, every=every, seed=seed)
            for _ in range(40):
                plan = search.next()
                search.tell(plan, value(plan, weights))
            best.append(search.score)
        better += best[1] > best[0]
    assert better >= 8


def test_the_bound_is_the_posterior_by_its_definition():
    search = LayerSearch(6, 3, kappa=1.5)
    for score in (1.0, 3.0, 2.0, 5.0):
        search.tell(search.next(), score)
    pool = np.array([[1, 0, 1, 0, 1, 0, 0, 0], [0, 1, 1, 1, 0, 0, 0, 0]], bool)
    y = np.array([1.0, 3.0, 2.0, 5.0])
    y = (y - y.mean()) / y.std()

    def kernel(one, other):
        distance = np.sqrt(5 * (one != other).sum() / 4)
        return (1 + distance + distance**2 / 3) * np.exp(-distance)

    tried = search._tried
    gram = np.array([[kernel(a, b) for b in tried] for a in tried]) + 1e-3 * np.eye(4)
    for row, bound in zip(pool, search._bound(pool), strict=True):
        across = np.array([kernel(row, b) for b in tried])
        mean = across @ np.linalg.inv(gram) @ y
        deviation = np.sqrt(1 - across @ np.linalg.inv(gram) @ across)
        assert bound == pytest.approx(mean + 1.5 * deviation)
