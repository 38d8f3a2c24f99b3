"""LANTERN++: its acceptance by hand, its identity at bound 0, its law against the definition, tables and their refusals."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import treewright
from treewright import laws
from treewright.core.claims import Law
from treewright.core.errors import CapabilityError, CompositionError, InputError, UnknownOption
from treewright.core.randomness import Keyed
from treewright.core.recipe import Recipe
from treewright.core.roles import Parts
from treewright.methods.speculate.lantern_pp import Config, Relaxed, parts
from treewright.models.loading import load
from treewright.models.tables import Table
from treewright.parts.verify.neighbours import Neighbours, nearest
from treewright.testing.enumerate import exact_law, total_variation

VECTORS = np.array([[0.0], [1.0], [1.5], [9.0]])
NEAR = [[1, 2, 3], [2, 0, 3], [1, 0, 3], [2, 1, 0]]


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    path = tmp_path_factory.mktemp("tables") / "near.npy"
    np.save(path, np.array(NEAR))
    return str(path)


def made(**options):
    return lambda: parts(Config(**options))


def softmax(logits):
    weights = np.exp(logits - logits.max())
    return weights / weights.sum()


def test_the_nearest_are_those_of_the_definition():
    assert nearest(VECTORS, 3).tolist() == NEAR and nearest(VECTORS, 99).shape == (4, 3)
    points = np.random.default_rng(0).normal(size=(1500, 5))
    found = nearest(points, 7)
    for token in (0, 700, 1023, 1024, 1499):
        distance = np.linalg.norm(points - points[token], axis=1)
        distance[token] = np.inf
        assert found[token].tolist() == np.argsort(distance, kind="stable")[:7].tolist()


def test_what_a_draft_borrows(table):
    law = np.array([0.1, 0.3, 0.4, 0.2])

    def borrowed(token, **options):
        gained, lenders = Relaxed(Config(table=table, **options)).borrowed(law, token)
        return round(gained, 9), lenders.tolist()

    assert borrowed(0, bound=3.0) == (0.3, [1])
    assert borrowed(0, bound=2.9) == (0.0, [])
    assert borrowed(1, bound=2.0) == (0.5, [2, 0])
    assert borrowed(1, bound=2.0, k=1) == (0.4, [2])
    assert borrowed(1, bound=0.5, kind="absolute") == (0.5, [2, 0])
    assert borrowed(1, bound=0.0) == borrowed(1, bound=0.0, kind="absolute") == (0.0, [])
    for token in range(4):
        gains = [borrowed(token, bound=bound)[0] for bound in (0.0, 0.5, 1.0, 2.0, 5.0)]
        assert gains == sorted(gains)
        assert all(gain <= bound * law[token] + 1e-9 for gain, bound in zip(gains, (0.0, 0.5, 1.0, 2.0, 5.0), strict=True))


@pytest.mark.parametrize("law", ["delta", "single", "swor", "iid", "mixed"])
@pytest.mark.parametrize("refuse", ["borrowed", "all"])
def test_bound_0_is_exact_rejection_token_for_token(tree_case, table, law, refuse):
    widths = (1,) if law in ("single", "mixed") else (2, 1)
    for kind in ("relative", "absolute"):
        make = made(table=table, bound=0.0, kind=kind, refuse=refuse)
        ours, exact = tree_case(make, law, widths, tokens=10), tree_case(lambda: Parts(), law, widths, tokens=10)
        assert [ours.learn(Keyed(seed), {}) for seed in range(4)] == [exact.learn(Keyed(seed), {}) for seed in range(4)]
    case = tree_case(make, law, widths, tokens=2)
    assert total_variation(exact_law(case), laws.plain_law(case)) < 1e-9


def one_step(target, draft, bound, near, refuse="borrowed"):
    """The law of the first token where one draft is drawn from q, written out from the definition."""
    law = np.zeros(len(target))
    for x in range(len(target)):
        sums = np.cumsum(target[near[x]])
        count = int((sums <= bound * target[x]).sum()) if bound else 0
        lenders = near[x][:count]
        chance = min(1.0, (target[x] + sum(target[lenders])) / draft[x])
        # Released: the neighbours leave q, so that nothing is taken off them. Ours: the lenders leave what is left.
        spared = set(near[x].tolist()) if refuse == "all" and count else set()
        gone = {x, *lenders.tolist()} if refuse == "borrowed" and count else set()
        left = [0.0 if t in gone else max(p - (0.0 if t in spared else draft[t]), 0.0) for t, p in enumerate(target)]
        left = np.array(left)
        left = left / left.sum() if left.sum() else np.where(np.arange(len(target)) == x, 0, target)
        law[x] += draft[x] * chance
        law += draft[x] * (1 - chance) * left / left.sum()
    return law


@pytest.mark.parametrize("refuse", ["borrowed", "all"])
@pytest.mark.parametrize("bound", [0.0, 0.7, 2.0, 6.0])
def test_the_law_of_a_drawn_draft_is_that_of_the_definition(tree_case, table, bound, refuse):
    case = tree_case(made(table=table, bound=bound, refuse=refuse), "single", (1,), tokens=1)
    # With one token of room nothing is drafted, so the first of two is looked at.
    case = tree_case(made(table=table, bound=bound, refuse=refuse), "single", (1,), tokens=2)
    found = np.zeros(4)
    for text, probability in exact_law(case).items():
        found[text[0]] += probability
    target, draft = (softmax(case.models[name].logits([1])) for name in ("target", "draft"))
    assert np.abs(found - one_step(target, draft, bound, np.array(NEAR), refuse)).max() < 1e-12


def released_law(target, draft, bound, near, drafts):
    """The law of the first token under the released rule for siblings drawn without replacement: of every refused sibling anew,
    q is what it was drawn by, its neighbours are struck from q where it borrowed, and P becomes what is above that."""
    law = {token: 0.0 for token in range(len(target))}

    def sibling(chance, left, seen):
        if len(seen) == drafts:
            for token, share in left.items():
                law[token] += chance * share
            return
        open_mass = sum(share for token, share in enumerate(draft) if token not in seen)
        q = {token: 0.0 if token in seen else share / open_mass for token, share in enumerate(draft)}
        for x in (token for token in q if q[token] > 0):
            gained, borrowed = 0.0, False
            for neighbour in near[x]:
                if bound * left[x] == 0 or gained + left[neighbour] > bound * left[x]:
                    break
                gained, borrowed = gained + left[neighbour], True
            accept = min(1.0, (left[x] + gained) / q[x]) if left[x] > 0 else 0.0
            law[x] += chance * q[x] * accept
            if accept < 1:
                struck = {token: 0.0 if borrowed and token in near[x] else q[token] for token in q}
                above = {token: max(left[token] - struck[token], 0.0) for token in q}
                total = sum(above.values())
                sibling(chance * q[x] * (1 - accept), {token: share / total for token, share in above.items()}, {*seen, x})

    sibling(1.0, dict(enumerate(target)), set())
    return np.array([law[token] for token in range(len(target))])


@pytest.mark.parametrize("seed", [6, 8])
@pytest.mark.parametrize("drafts", [1, 2, 3])
@pytest.mark.parametrize("k", [1, 2])
@pytest.mark.parametrize("bound", [0.0, 0.7, 2.0])
def test_refuse_all_over_draws_without_replacement_is_the_released_rule(tree_case, tmp_path, bound, k, drafts, seed):
    near, rows = tmp_path / "near.npy", np.array(NEAR)[:, :k]
    np.save(near, rows)
    case = tree_case(made(table=str(near), bound=bound, refuse="all", k=k), "swor", (drafts,), tokens=2)
    # A draft model that is surer than the target, so that drafts are refused although they borrowed.
    case = replace(case, models=case.models | {"draft": Table(4, seed, sharpness=2.0)})
    found = np.zeros(4)
    for text, probability in exact_law(case).items():
        found[text[0]] += probability
    target, draft = (softmax(case.models[name].logits([1])) for name in ("target", "draft"))
    assert np.abs(found - released_law(target, draft, bound, rows.tolist(), drafts)).max() < 1e-12


def test_the_neighbours_of_a_refused_drawn_draft_keep_their_mass(table):
    """By hand: the draft [0] has P = 0.1 and q = 0.7, borrows the 0.1 of [1] and is refused."""
    target, draft = np.array([0.1, 0.1, 0.5, 0.3]), np.array([0.7, 0.1, 0.1, 0.1])

    def left(refuse):
        rule = Relaxed(Config(table=table, k=2, bound=1.0, refuse=refuse))
        assert rule.chance(target, draft, 0) == pytest.approx(0.2 / 0.7)
        return rule.refuse(target, draft, 0, Law.SWOR)

    everyone, next_draft = left("all")
    assert everyone == pytest.approx(np.array([0, 0.1, 0.5, 0.2]) / 0.8)
    assert left("borrowed")[0] == pytest.approx(np.array([0, 0, 0.4, 0.2]) / 0.6)
    # The next sibling was drawn from q without [0], neighbours and all.
    assert next_draft == pytest.approx(np.array([0, 1, 1, 1]) / 3)


@pytest.mark.parametrize("refuse", ["borrowed", "all"])
@pytest.mark.parametrize("lenders", [0, 1, 2])
def test_a_refused_deterministic_draft_leaves_the_law_with_its_lenders(tree_case, table, lenders, refuse):
    tables = tree_case(lambda: Parts()).models
    target, x = softmax(tables["target"].logits([1])), int(tables["draft"].logits([1]).argmax())
    bound = 1.001 * target[NEAR[x][:lenders]].sum() / target[x]
    case = tree_case(made(table=table, bound=float(bound), refuse=refuse), "delta", (1,), tokens=2)
    found = np.zeros(4)
    for text, probability in exact_law(case).items():
        found[text[0]] += probability
    count = int((np.cumsum(target[NEAR[x]]) <= bound * target[x]).sum())
    assert count == lenders
    chance, left = target[x] + target[NEAR[x][:count]].sum(), target.copy()
    left[[x, *(NEAR[x] if refuse == "all" and count else NEAR[x][:count])]] = 0
    left = left if left.any() else np.where(np.arange(4) == x, 0, target)
    expected = (1 - chance) * left / left.sum()
    expected[x] += chance
    assert np.abs(found - expected).max() < 1e-12


def test_how_far_it_is_from_plain_decoding(tree_case, table):
    """Total variation of two tokens over the bound: none at 0."""

    def distance(bound, law, widths):
        case = tree_case(made(table=table, bound=bound), law, widths, tokens=2)
        return total_variation(exact_law(case), laws.plain_law(case))

    assert [round(distance(bound, "swor", (2,)), 3) for bound in (0.0, 1.0, 2.0, 4.0)] == SWOR
    assert [round(distance(bound, "delta", (2,)), 3) for bound in (0.0, 1.0, 2.0, 4.0)] == DELTA


SWOR, DELTA = [0.0, 0.028, 0.028, 0.127], [0.0, 0.295, 0.295, 0.295]


def test_temperature_0(tree_case, table):
    for row in range(3):
        exact = tree_case(made(table=table, bound=0.0), widths=(2, 1), temperature=0.0, row=row, tokens=10)
        assert exact_law(exact) == {text: pytest.approx(1) for text in laws.plain_law(exact)}
    # The draft [1] has 0.3 and borrows the 0.4 of [2]: it passes where it would not be the argmax.
    rule = Relaxed(Config(table=table, bound=2.0))
    greedy = tree_case(lambda: Parts(accept=rule), widths=(1, 1), temperature=0.0, tokens=10)
    assert exact_law(greedy) != laws.plain_law(greedy)


def test_accepts_more_the_larger_the_bound(tree_case, table):
    counts = []
    for bound in (0.0, 1.0, 3.0, 9.0):
        case, calls = tree_case(made(table=table, bound=bound), "swor", (2, 1), tokens=40), 0
        for seed in range(6):
            engine = case.open(Keyed(seed), {})
            for _ in engine.run():
                calls += 1
        counts.append(calls)
    assert counts == sorted(counts, reverse=True) and counts[-1] < counts[0]


def test_files_of_every_kind_give_the_same_table(table, tmp_path):
    np.savez(tmp_path / "v.npz", vectors=VECTORS, other=np.zeros(3))
    np.savez(tmp_path / "n.npz", neighbours=np.array(NEAR))
    save_file({"embed.weight": torch.tensor(VECTORS).bfloat16(), "b": torch.zeros(2)}, tmp_path / "w.safetensors")
    for path, key in (
        (table, ""),
        (tmp_path / "v.npz", ""),
        (tmp_path / "n.npz", ""),
        (tmp_path / "w.safetensors", "embed.weight"),
    ):
        assert Neighbours(str(path), key, 3).load(4).tolist() == NEAR


def test_tables_that_will_not_do(table, tmp_path):
    save_file({"a": torch.zeros(2), "b": torch.zeros(2)}, tmp_path / "w.safetensors")
    np.save(tmp_path / "wrong.npy", np.array([[7], [0]]))
    (tmp_path / "broken.npz").write_bytes(b"none")
    model = load(Table(5, 0))
    for options, error, words in (
        ({}, CapabilityError, "no table of similar tokens"),
        ({"table": table}, CapabilityError, "for 4 tokens and the target has 5"),
        ({"table": "nowhere.npy"}, InputError, "table is 'nowhere.npy'"),
        ({"table": str(tmp_path / "w.safetensors")}, InputError, "key is '', and table .* holds a, b"),
        ({"table": str(tmp_path / "w.safetensors"), "key": "a"}, InputError, r"has shape \(2,\)"),
        ({"table": str(tmp_path / "wrong.npy")}, InputError, "names token 7 of 2"),
        ({"table": str(tmp_path / "broken.npz")}, InputError, "cannot be read"),
    ):
        with pytest.raises(error, match=words):
            treewright.generate(model, [1], "token_recycling+lantern_pp", options, max_new_tokens=2)


@pytest.mark.parametrize("options", [{"k": 0}, {"bound": -1.0}, {"kind": "other"}, {"refuse": "none"}], ids=str)
def test_bad_options_are_refused(options):
    with pytest.raises(UnknownOption, match=next(iter(options))):
        treewright.generate(
            load(Table(4, 0)), [1], "token_recycling+lantern_pp", {"table": "random", **options}, max_new_tokens=2
        )


def test_it_joins_drafters_and_rows_of_a_batch_are_those_rows_alone():
    assert laws.row_independent("specinfer+lantern_pp", {"table": "random"}).worst == 0
    with pytest.raises(CompositionError, match="both take the single seat 'accept'"):
        Recipe.of("lantern_pp+typical_acceptance")
    settings = dict(options={"table": "random", "k": 3}, models={"draft": load(Table(9, 5))}, max_new_tokens=20, temperature=1.0)
    rows = treewright.generate(load(Table(9, 4)), [[1, 2, 3], [5], [7, 8]], "specinfer+lantern_pp", **settings)
    alone = treewright.generate(load(Table(9, 4)), [[1, 2, 3]], "specinfer+lantern_pp", **settings)
    assert alone[0].tokens == rows[0].tokens
