"""SpecMQuant's hierarchy: the middle model's chain is its own text, made in fewer calls; the law of the target's text."""

from __future__ import annotations

import numpy as np
import pytest

from treewright.core.claims import Law
from treewright.core.errors import InputError
from treewright.core.request import Budget, Sampling
from treewright.methods.speculate import specmquant
from treewright.models.tables import Table
from treewright.testing import laws
from treewright.testing.reports import LawBroken

TARGET = Table(5, seed=1)
MIDDLE = Table(5, seed=2, like=TARGET, likeness=0.6)
SMALL = Table(5, seed=3, like=MIDDLE, likeness=0.6)
PROMPTS = [(1, 0, 2), (3,), (2, 2, 1, 0, 1)]
OPTIONS = {"chain": 4, "levels": 2, "top_k": 2, "nodes": 4}


@pytest.mark.parametrize(
    "options",
    [
        {"chain": 2, "levels": 3, "top_k": 3, "nodes": 2},
        {"chain": 1, "levels": 2, "top_k": 2, "nodes": 3},
        {"chain": 1, "levels": 1},
    ],
    ids=str,
)
def test_joint_law_of_two_tokens_is_the_targets(options, off_the_law):
    target, middle, small = Table(3, seed=10), Table(3, seed=1), Table(3, seed=2)
    assert off_the_law("specmquant", options, target, middle, {"draft2": small}) < 1e-12


def test_a_wrong_law_of_the_chain_is_seen(spoiled):
    with pytest.raises(LawBroken):
        laws.lossless("specmquant", {"chain": 2, "levels": 1}, alter=spoiled)


def test_a_chain_that_ends_by_what_its_last_token_is_breaks_the_law(off_the_law):
    """Whether a place is drawn may depend on earlier tokens; leaving a token out because of what it is, may not."""

    class Choosy(specmquant.Hierarchy):
        def propose(self, round):
            super().propose(round)
            forest = round.forest
            if forest.columns > 1 and forest.token[0, 1] == 0:
                forest.token[0, 1:] = -1

    config = specmquant.Config(chain=1, levels=1)
    parts = specmquant.parts(config)
    parts.propose = Choosy(config)
    assert off_the_law(parts, None, Table(3, seed=10), Table(3, seed=1), {"draft2": Table(3, seed=2)}) > 0.01


def calls_of(decoded, model: str) -> int:
    return sum(call.model == model and call.kind == "score" for call in decoded.trace().calls)


def offered_by_hand(small: Table, text: list[int], levels: int, top_k: int, nodes: int, room: int) -> set[tuple[int, ...]]:
    """The best `nodes` of an EAGLE-2 tree below `text`, none of them deeper than `room`."""
    values, level = dict[tuple[int, ...], float](), {(): 0.0}
    for _ in range(min(levels, room)):
        below = {}
        for path, value in level.items():
            logits = small.logits([*text, *path])
            logs = logits - logits.max() - np.log(np.exp(logits - logits.max()).sum())
            below |= {(*path, int(token)): value + logs[token] for token in np.argsort(-logs)[:top_k]}
        values |= dict(sorted(below.items(), key=lambda item: -item[1])[: max(top_k, nodes)])
        level = dict(sorted(below.items(), key=lambda item: -item[1])[:top_k])
    return set(sorted(values, key=lambda path: -values[path])[:nodes])


def calls_by_hand(text: tuple[int, ...], chain: int, levels: int, top_k: int, nodes: int, room: int) -> int:
    """Inner rounds of a chain at temperature 0: each brings what was offered of the middle model's text, and one token."""
    new, calls, most = list[int](), 0, min(chain + levels, room)
    while len(new) < min(chain, most):
        offered, begin, calls = offered_by_hand(SMALL, [*text, *new], levels, top_k, nodes, room - len(new)), len(new), calls + 1
        while tuple(new[begin:]) in offered | {()} and len(new) < most:
            new.append(int(MIDDLE.logits([*text, *new]).argmax()))
    return calls


@pytest.mark.parametrize("top_k", [1, 2, 3, 5])
@pytest.mark.parametrize("nodes", [1, 2, 4])
def test_what_is_offered_is_the_best_below_the_end_new_or_not(top_k, nodes, decode, greedy_text):
    """With fewer nodes than are expanded, a chain ends at nodes of the smallest model that have children already."""
    options = {"chain": 5, "levels": 3, "top_k": top_k, "nodes": nodes}
    expected = []
    for prompt in PROMPTS:
        how = dict(others={"draft2": SMALL}, max_new_tokens=20, budget=Budget(model_calls=1))
        decoded = decode(TARGET, "specmquant", [prompt], options, MIDDLE, **how)
        expected.append(calls_by_hand(prompt, **options, room=19))
        assert calls_of(decoded, "draft") == expected[-1]
    together = decode(TARGET, "specmquant", PROMPTS, options, MIDDLE, **how)
    assert calls_of(together, "draft") == max(expected)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_with_fewer_nodes_than_are_expanded_rows_are_their_own(temperature, decode):
    options = {"chain": 6, "levels": 3, "top_k": 3, "nodes": 2}
    how = dict(others={"draft2": SMALL}, max_new_tokens=30, sampling=Sampling(temperature), seed=3)
    together = decode(TARGET, "specmquant", PROMPTS, options, MIDDLE, **how)
    assert together.tokens[:1] == decode(TARGET, "specmquant", PROMPTS[:1], options, MIDDLE, **how).tokens
    assert together.accepted() > 15


def test_the_chain_is_the_middle_models_own_text(decode, greedy_text, watcher):
    chains = watcher(lambda outcome: outcome.round.forest)
    decode(TARGET, "specmquant", PROMPTS, OPTIONS, MIDDLE, [chains], others={"draft2": SMALL}, max_new_tokens=20)
    forest = chains.seen[0]
    for row, prompt in enumerate(PROMPTS):
        chain = [int(token) for token in forest.token[row, 1:] if token >= 0]
        assert 4 <= len(chain) <= 6
        assert chain == greedy_text(MIDDLE, prompt, len(chain))
        assert forest.shape.parent[row, : len(chain) + 1].tolist() == list(range(-1, len(chain)))


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_the_smallest_model_changes_calls_and_never_the_chain(temperature, decode, watcher):
    """A perfect, a fair and a useless one: chains are beginnings of each other."""
    chains, calls = [], []
    for small in (MIDDLE, SMALL, Table(5, seed=77, sharpness=30.0)):
        first = watcher(lambda outcome: [int(token) for token in outcome.round.forest.token[0, 1:] if token >= 0])
        decoded = decode(
            TARGET, "specmquant", PROMPTS[:1], OPTIONS | {"top_k": 5, "nodes": 30}, MIDDLE, [first], others={"draft2": small},
            max_new_tokens=50, sampling=Sampling(temperature=temperature),
        )  # fmt: skip
        chains.append(first.seen[0])
        calls.append(calls_of(decoded, "draft") / calls_of(decoded, "target"))
    for chain in chains:
        least = min(len(chain), len(chains[0]))
        assert chain[:least] == chains[0][:least] and len(chain) >= 4
    assert calls[0] < 2.1


def test_a_useless_smallest_model_costs_a_call_for_each_token(decode):
    class Wrong(Table):
        def logits(self, prefix):
            return -MIDDLE.logits(prefix) * 100

    decoded = decode(
        MIDDLE, "specmquant", PROMPTS[:1], {"chain": 3, "levels": 1, "top_k": 1, "nodes": 1}, MIDDLE,
        others={"draft2": Wrong(5, seed=0)}, max_new_tokens=16,
    )  # fmt: skip
    assert [len(step.emitted) for step in decoded.trace().steps] == [4] * 4
    calls = [call.model for call in decoded.trace().calls if call.kind == "score"]
    assert calls[:7] == ["draft2", "draft", "draft2", "draft", "draft2", "draft", "target"]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_three_times_the_same_model_accepts_everything(temperature, decode, watcher):
    chains = watcher(lambda outcome: [(outcome.round.forest.token[row] >= 0).sum() for row in range(outcome.round.rows)])
    decoded = decode(
        TARGET, "specmquant", PROMPTS, OPTIONS, TARGET, [chains], others={"draft2": TARGET}, max_new_tokens=40,
        sampling=Sampling(temperature=temperature),
    )  # fmt: skip
    gained = [len(step.emitted) for step in decoded.trace().steps]
    assert gained[:-1] == [claims[0] for claims in chains.seen][: len(gained) - 1]


def test_laws_of_the_chain_are_those_it_was_drawn_by(first_forest, softmax):
    forest = first_forest("specmquant", OPTIONS, TARGET, MIDDLE, PROMPTS, 0.5, others={"draft2": SMALL})
    assert set(forest.law[1:]) == {Law.SWOR}
    for row, prompt in enumerate(PROMPTS):
        length = int((forest.token[row] >= 0).sum())
        for column in range(length - 1):
            law = softmax(MIDDLE.logits((*prompt, *forest.path_tokens(row, column))) / 0.5)
            assert forest.q[column][row] == pytest.approx(law, abs=1e-12)


def test_text_and_fewer_middle_calls_than_a_chain_of_its_own(decode, greedy_text):
    decoded = decode(TARGET, "specmquant", PROMPTS[:1], OPTIONS, MIDDLE, others={"draft2": SMALL}, max_new_tokens=60)
    chain = decode(TARGET, "speculative_sampling", PROMPTS[:1], {"tokens": 4}, MIDDLE, max_new_tokens=60)
    assert decoded.tokens == chain.tokens == [greedy_text(TARGET, PROMPTS[0], 60)]
    assert calls_of(decoded, "draft") < 0.8 * calls_of(chain, "draft")
    assert calls_of(decoded, "target") <= calls_of(chain, "target")


@pytest.mark.parametrize(("columns", "most"), [(None, 6), (4, 3), (2, 1), (1, 0)])
def test_limit_on_columns(columns, most, first_forest, paths_of):
    forest = first_forest("specmquant", OPTIONS, TARGET, MIDDLE, PROMPTS[:1], columns=columns, others={"draft2": MIDDLE})
    assert len(paths_of(forest)) == most


def test_rows_do_not_depend_on_their_neighbours(check_rows):
    check_rows("specmquant", OPTIONS, TARGET, MIDDLE, {"draft2": SMALL})


def test_real_models_write_their_greedy_text(check_on_llamas):
    check_on_llamas("specmquant", OPTIONS, roles=("draft", "draft2"))


@pytest.mark.parametrize("option", ["chain", "levels", "top_k", "nodes"])
def test_impossible_options_are_refused(option):
    with pytest.raises(InputError, match=f"{option} is 0; allowed: an integer >= 1"):
        specmquant.Config(**{option: 0})
