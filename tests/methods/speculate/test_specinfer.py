"""SpecInfer: the size and the law of its trees, and the law of its text by going through all outcomes."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from treewright.core.claims import ABSENT, Law
from treewright.core.errors import InputError
from treewright.core.request import Budget, Sampling
from treewright.methods.speculate.specinfer import Config
from treewright.models.tables import Table
from treewright.parts.propose.draft_model import full_tree, tree_size
from treewright.testing import laws

TARGET, DRAFT = Table(6, seed=1), Table(6, seed=2)
PROMPTS = [(1, 0), (5,)]


def softmax(logits: np.ndarray) -> np.ndarray:
    weights = np.exp(logits - logits.max())
    return weights / weights.sum()


@pytest.mark.parametrize(
    ("expansion", "levels"), [((1, 1, 3, 1), [1, 1, 3, 3]), ((2, 2, 1), [2, 4, 4]), ((4,), [4]), ((1, 1, 1), [1, 1, 1])]
)
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_levels_of_the_tree(expansion, levels, temperature, decode, watcher):
    forests = watcher(lambda outcome: outcome.round.forest)
    decode(
        TARGET, "specinfer", PROMPTS, {"expansion": expansion}, DRAFT, [forests], max_new_tokens=20,
        sampling=Sampling(temperature=temperature),
    )  # fmt: skip
    forest = forests.seen[0]
    assert forest.columns == tree_size(full_tree(expansion)) == 1 + sum(levels)
    depth = forest.shape.depth[0].tolist()
    assert [depth.count(level) for level in range(1, len(levels) + 1)] == levels
    assert set(forest.law[1:]) == ({Law.DELTA} if temperature == 0 else {Law.SINGLE if n == 1 else Law.SWOR for n in expansion})
    for row in range(2):
        for children in forest.shape.children(row):
            tokens = [int(forest.token[row, child]) for child in children]
            assert len(set(tokens)) == len(tokens)


def test_default_tree_is_that_of_the_paper():
    assert Config().expansion == (1, 1, 3, 1, 1, 1, 1, 1)
    assert tree_size(full_tree(Config().expansion)) == 1 + 1 + 1 + 3 * 6


def test_greedy_children_are_the_drafts_most_probable(decode, watcher):
    forests = watcher(lambda outcome: outcome.round.forest)
    decode(TARGET, "specinfer", PROMPTS, {"expansion": (3, 2)}, DRAFT, [forests], max_new_tokens=8)
    forest = forests.seen[0]
    for row, prompt in enumerate(PROMPTS):
        for column in range(4):
            path = [*prompt, *forest.path_tokens(row, column)]
            children = [int(forest.token[row, child]) for child in forest.shape.children(row)[column]]
            assert children == np.argsort(-DRAFT.logits(path))[: len(children)].tolist()


@pytest.mark.parametrize("draws", ["swor", "iid"])
@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_law_of_siblings(temperature, draws, decode, outcomes):
    """The ordered pair (x, y) has probability q(x) q(y) / (1 - q(x)) without replacement, q(x) q(y) with it."""
    target, draft = Table(4, seed=1), Table(4, seed=2)
    law: dict[tuple[int, ...], float] = {}

    def run(chance):
        decoded = decode(
            target, "specinfer", [(1, 0)], {"expansion": (2,), "draws": draws}, draft, randomness=chance, max_new_tokens=5,
            budget=Budget(model_calls=1), sampling=Sampling(temperature=temperature),
        )  # fmt: skip
        return tuple(decoded.trace().steps[0].token[1:])

    for probability, pair in outcomes(run):
        law[pair] = law.get(pair, 0.0) + probability
    q = softmax(draft.logits((1, 0)) / temperature)
    pairs = list(itertools.permutations(range(4), 2) if draws == "swor" else itertools.product(range(4), repeat=2))
    assert sorted(law) == sorted(pairs)
    for x, y in pairs:
        assert law[x, y] == pytest.approx(q[x] * q[y] / (1 - q[x] if draws == "swor" else 1), abs=1e-12)


@pytest.mark.parametrize(
    ("expansion", "vocabulary", "draws"), [((2,), 4, "swor"), ((3,), 4, "swor"), ((1, 2), 3, "swor"), ((3,), 3, "iid")]
)
def test_joint_law_of_two_tokens_is_the_targets(expansion, vocabulary, draws, decode, outcomes):
    """With these seeds the residual after a rejection keeps two or three tokens, so its weights matter. Siblings above a chain,
    (2, 1), are in tests/testing/test_laws.py."""
    target, draft = Table(vocabulary, seed=10), Table(vocabulary, seed=1)
    law: dict[tuple[int, ...], float] = {}

    def run(chance):
        decoded = decode(
            target, "specinfer", [(1, 0)], {"expansion": expansion, "draws": draws}, draft, randomness=chance,
            max_new_tokens=2 + len(expansion), budget=Budget(tokens=2), sampling=Sampling(temperature=1.0),
        )  # fmt: skip
        return tuple(decoded.tokens[0])

    for probability, text in outcomes(run):
        law[text] = law.get(text, 0.0) + probability
    for x, y in itertools.product(range(vocabulary), repeat=2):
        expected = softmax(target.logits((1, 0)))[x] * softmax(target.logits((1, 0, x)))[y]
        assert law[x, y] == pytest.approx(expected, abs=1e-12)


def test_more_children_than_tokens(decode, watcher):
    """A level wider than the law's support claims all there is and leaves the rest absent."""
    forests = watcher(lambda outcome: outcome.round.forest.token.copy())
    sampling = Sampling(temperature=1.0, top_k=2)
    decode(TARGET, "specinfer", PROMPTS, {"expansion": (4,)}, DRAFT, [forests], max_new_tokens=8, sampling=sampling)
    for row, prompt in enumerate(PROMPTS):
        best = set(np.argsort(-DRAFT.logits(prompt))[:2].tolist())
        assert set(forests.seen[0][row, 1:3].tolist()) == best
        assert forests.seen[0][row, 3:].tolist() == [ABSENT, ABSENT]


@pytest.mark.parametrize(("columns", "expected"), [(None, 11), (20, 7), (12, 3), (4, 1)])
def test_limit_on_columns_leaves_out_whole_levels(columns, expected, decode, greedy_text):
    decoded = decode(TARGET, "specinfer", PROMPTS, {"expansion": (2, 2, 1)}, DRAFT, columns=columns, max_new_tokens=12)
    assert decoded.tokens == [greedy_text(TARGET, prompt, 12) for prompt in PROMPTS]
    assert len(decoded.trace().steps[0].token) == expected


def test_draft_that_knows_the_target_fills_every_level(decode):
    decoded = decode(TARGET, "specinfer", PROMPTS, {"expansion": (2, 1, 1)}, TARGET, max_new_tokens=16)
    assert [len(step.emitted) for step in decoded.trace().steps] == [4] * 4


def test_one_draft_call_for_each_level(decode):
    decoded = decode(TARGET, "specinfer", PROMPTS[:1], {"expansion": (2, 2, 1)}, DRAFT, max_new_tokens=30)
    calls = [call.model for call in decoded.trace().calls if call.kind == "score"]
    assert calls[:8] == ["draft", "draft", "draft", "target"] * 2


def test_independent_draws_have_their_law_and_the_greedy_tree_is_the_same(decode, watcher):
    forests = watcher(lambda outcome: outcome.round.forest)
    how = dict(draft=DRAFT, observers=[forests], max_new_tokens=20, sampling=Sampling(temperature=1.0))
    decode(TARGET, "specinfer", PROMPTS, {"expansion": (3, 1), "draws": "iid"}, **how)
    assert forests.seen[0].law[1:] == [Law.IID] * 3 + [Law.SINGLE] * 3
    greedy = [
        decode(TARGET, "specinfer", PROMPTS, {"expansion": (3, 2), "draws": draws}, DRAFT, max_new_tokens=20)
        for draws in ("swor", "iid")
    ]
    assert [greedy[0].trace(row).steps for row in range(2)] == [greedy[1].trace(row).steps for row in range(2)]


def test_independent_draws_are_exact_with_repeats_and_under_everything(decode, watcher):
    """A narrow top-k makes repeats the rule."""
    report = laws.lossless("specinfer", {"expansion": (2,), "draws": "iid"})
    assert 0 < report.total("accepted") < report.total("proposed")
    repeats = watcher(lambda outcome: outcome.round.forest.token[0, 1:].tolist())
    settings = dict(draft=DRAFT, max_new_tokens=30, sampling=Sampling(temperature=1.0, top_k=2), seed=3)
    batch = decode(TARGET, "specinfer", PROMPTS, {"expansion": (3,), "draws": "iid"}, observers=[repeats], **settings)
    assert any(len(set(tokens)) < len(tokens) for tokens in repeats.seen)
    alone = [decode(TARGET, "specinfer", PROMPTS[:1], {"expansion": (3,), "draws": "iid"}, **settings)]
    assert batch.tokens[0] == alone[0].tokens[0]


@pytest.mark.parametrize("options", [{"expansion": ()}, {"expansion": (2, 0)}, {"draws": "all"}], ids=str)
def test_bad_options(options):
    with pytest.raises(InputError, match=next(iter(options))):
        Config(**options)
