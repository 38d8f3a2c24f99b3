"""Models with states: what is remembered after claims, commits and forks, against plain forwards over the whole text."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
import torch

from treewright.core.claims import ABSENT
from treewright.models import scans
from treewright.models.causal import CausalModel
from treewright.models.loading import Loaded, load
from treewright.models.recurrent_session import CACHES, LAG, STEP, RecurrentSession
from treewright.models.states import States
from treewright.testing.certify import certify
from treewright.testing.laws import LawBroken, tree_scoring

PURE = ["mamba", "mamba2"]
FAMILIES = [*PURE, "qwen3_next", "jamba", "falcon_h1"]
PROMPTS = [[5], [3, 8, 1, 9, 22, 4, 17, 60, 2], [7, 7, 2]]
TOLERANCE = 1e-4
"""transformers computes states in float32 in float64 models too; the bugs planted below show above 1e-2."""


@pytest.fixture
def verbs(causal, twin_of):
    """A session that has gone through rounds of every kind; the largest error on the way is checked."""

    def go(family: str, seed: int, rounds: int = 6) -> Any:
        twin = twin_of(causal(family, "float64"), PROMPTS, seed=seed, limit=200)
        for _ in range(rounds):
            calls, shared, extra = twin.random.integers(1, 4), twin.random.random() < 0.5, twin.random.integers(0, 3)
            assert twin.round(int(calls), bool(shared), int(extra)) <= TOLERANCE
            deed = twin.random.integers(4)
            if deed == 0:
                twin.select(twin.random.integers(0, len(twin.texts), size=twin.random.integers(1, 5)).tolist())
            if deed == 1 and len(twin.texts) < 5:
                twin.admit([[twin.token() for _ in range(twin.random.integers(1, 9))]])
            if deed == 2:
                twin.append(0, [twin.token() for _ in range(twin.random.integers(1, 40))])
        return twin

    return go


def remembered(states: States, row: int) -> list[torch.Tensor]:
    """All that is held of a row: states, and keys and values of the stored tokens."""
    end = int(states.stored[row])
    _, keys, values = states._planes()
    return [state[row].clone() for state in states._states.values()] + [p[row, :, :end].clone() for p in (*keys, *values)]


@pytest.mark.parametrize("family", FAMILIES)
def test_rejected_claims_leave_no_trace(family, verbs, twin_of):
    """Answers are right through any sequence of verbs, and then a row's memory is that of reading its tokens alone."""
    twin = verbs(family, 1)
    states = twin.session._memory
    for row, text in enumerate(twin.texts):
        held = int(states.stored[row])
        fresh = twin_of(twin.model, [text[: held + 1]], limit=200).session._memory
        assert fresh.stored.tolist() == [held]
        for ours, theirs in zip(remembered(states, row), remembered(fresh, 0), strict=True):
            assert (ours - theirs).abs().max() <= 1e-4 * max(1.0, float(theirs.abs().max()))


@pytest.mark.parametrize("family", FAMILIES)
def test_scoring_does_not_touch_the_memory(family, causal, twin_of):
    twin = twin_of(causal(family, "float32"), PROMPTS)
    before = [remembered(twin.session._memory, row) for row in range(3)]
    forest = twin.forest()
    twin.grow(forest, 6, shared=False)
    twin.session.score(forest)
    after = [remembered(twin.session._memory, row) for row in range(3)]
    assert all(torch.equal(a, b) for old, new in zip(before, after, strict=True) for a, b in zip(old, new, strict=True))


@pytest.mark.parametrize("family", FAMILIES)
def test_plain_decoding_reads_each_token_once(family, causal, decode, ragged):
    decoded = decode(causal(family, "float32"), "plain", ragged, max_new_tokens=12)
    scored = [call for call in decoded.trace().calls if call.kind == "score"]
    assert [(call.rows, call.columns) for call in scored] == [(8, 1)] * 12


def test_prompts_are_read_without_padding(causal, twin_of):
    """Rows go together as far as the shortest reaches: a padded token would change the state."""
    twin = twin_of(causal("mamba2", "float32"), PROMPTS)
    assert twin.calls == [("prefill", 2, 2), ("prefill", 1, 6)]


def test_the_memory_lags_and_catches_up(causal, twin_of):
    """Rounds that reject everything: each reads what the memory lacks again, and one call in LAG tokens moves it on."""
    twin, rounds = twin_of(causal("mamba", "float64"), [PROMPTS[1]], limit=200), 2 * LAG + 2
    for _ in range(rounds):
        forest = twin.forest()
        forest.grow([0, 0], twin.random.integers(1, 90, size=(1, 2)))
        assert twin.error(forest, twin.session.score(forest)) <= TOLERANCE
        twin.append(0, [twin.token()])
        twin.session.commit([[]])
    columns = [columns for kind, _, columns in twin.calls if kind == "score"]
    assert len(columns) == rounds + 2
    assert columns.count(LAG) >= 2 and max(columns) <= LAG + 1
    # Ragged rows move by common steps, in one forward.
    assert LAG % STEP == 0


def test_an_accepted_path_is_not_read_again(causal, twin_of):
    twin = twin_of(causal("jamba", "float64"), [PROMPTS[1]])
    forest = twin.forest()
    forest.grow([0, 1, 2], twin.random.integers(1, 90, size=(1, 3)))
    twin.session.score(forest)
    twin.append(0, [*forest.path_tokens(0, 3), 9])
    twin.session.commit([[1, 2, 3]])
    assert twin.error(twin.forest(), twin.session.root()) <= TOLERANCE
    assert twin.calls[1:] == [("score", 1, 4), ("score", 1, 1)]


@pytest.mark.parametrize("family", ["mamba", "qwen3_next"])
def test_forks_between_score_and_commit(family, causal, twin_of):
    for seed, order in enumerate(([0, 0, 1], [2, 0, 1])):
        twin = twin_of(causal(family, "float64"), PROMPTS, seed=seed)
        twin.round()
        forest = twin.forest()
        twin.grow(forest, 4, shared=False)
        twin.session.score(forest)
        twin.select(order)
        forest.select(order)
        twin.grow(forest, 2, shared=False)
        assert twin.error(forest, twin.session.score(forest)) <= TOLERANCE
        twin.commit(forest, 1)
        assert max(twin.round(2, False) for _ in range(2)) <= TOLERANCE


@pytest.mark.parametrize("family", ["mamba", "falcon_h1"])
def test_samples_of_one_prompt_fork_its_memory(family, causal, decode):
    from treewright.core.request import Sampling

    settings = dict(max_new_tokens=8, sampling=Sampling(temperature=1.0), seed=4, samples=3)
    model = causal(family, "float64")
    together = decode(model, "prompt_lookup", [PROMPTS[1] * 2, PROMPTS[2]], **settings)
    alone = decode(model, "plain", [PROMPTS[1] * 2, PROMPTS[2]], batch_rows=3, **settings)
    assert together.rows == alone.rows and len(together.rows) == 6
    prefills = [(call.rows, call.columns) for call in together.trace().calls if call.kind == "prefill"]
    assert prefills == [(2, 2), (1, 15)]


@pytest.mark.parametrize("family", ["mamba2", "jamba"])
def test_states_of_the_text(family, causal, twin_of):
    twin = twin_of(causal(family, "float64"), PROMPTS, seed=4, hidden=True)
    for extra in (1, 0, 2, 20, 1):
        twin.round(calls=2, extra=extra)
        twin.session.root()
        for row, text in enumerate(twin.texts):
            with torch.no_grad():
                output = twin.model.model(torch.tensor([text]), use_cache=False, output_hidden_states=True)
            found = twin.session.states(row)
            assert found.shape == output.hidden_states[-1][0].shape
            assert (found - output.hidden_states[-1][0]).abs().max() < 1e-4
        twin.session.commit([[]] * 3)


@pytest.mark.parametrize("family", ["mamba2", "qwen3_next"])
def test_prompt_top_ids(family, causal, twin_of, plain):
    model = causal(family, "float64")
    top = twin_of(model, PROMPTS, prompt_top=4).session.prompt_top
    assert top.shape == (3, 9, 4)
    for row, prompt in enumerate(PROMPTS):
        for position in range(len(prompt) - 1):
            expected = np.argsort(-plain(model, prompt[: position + 1]))[:4]
            assert top[row, position].tolist() == expected.tolist()
        assert (top[row, len(prompt) - 1 :] == ABSENT).all()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_session_may_read_a_prompt_of_its_own(family, causal, twin_of):
    own = [[5, 1, 1, 40], [9], [7, 7, 2, 3, 3, 3, 8, 8]]
    twin = twin_of(causal(family, "float64"), PROMPTS, seed=11, own=own)
    assert max(twin.round(calls, extra=extra) for calls, extra in ((1, 1), (2, 0), (1, 1))) <= TOLERANCE


def test_state_size_does_not_depend_on_the_text(causal, twin_of):
    """Pure recurrent models hold the same bytes for any length; hybrids grow with the keys of their attention layers."""

    def held(family: str, length: int) -> int:
        return twin_of(causal(family, "float32"), [[1] * length], limit=length + 40).session.cache_bytes()

    for family in PURE:
        assert held(family, 5) == held(family, 300) > 0
    assert held("qwen3_next", 300) > held("qwen3_next", 5)


def test_fewer_calls_than_tokens_on_a_repetitive_text(decode):
    """A Mamba whose embeddings are tied repeats itself."""
    import transformers as t

    config = t.MambaConfig(vocab_size=97, hidden_size=32, num_hidden_layers=2, initializer_range=0.2, state_size=8)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = CausalModel(t.MambaForCausalLM(config).eval())
    decoded = decode(model, "prompt_lookup", [PROMPTS[1]], max_new_tokens=48)
    assert decoded.tokens == decode(model, "plain", [PROMPTS[1]], max_new_tokens=48).tokens
    assert decoded.trace().model_calls <= 12


@pytest.mark.parametrize("family", FAMILIES)
def test_a_good_draft_costs_less_than_a_call_a_token(family, causal, decode):
    """The model drafts for itself: every claim is accepted."""
    model = causal(family, "float32")
    decoded = decode(model, "speculative_sampling", [PROMPTS[1], PROMPTS[2]], {"tokens": 4}, model, max_new_tokens=20)
    assert decoded.trace().model_calls == 4


BUGS = {}


def bug(plant: Any) -> Any:
    BUGS[plant.__name__] = plant
    return plant


@bug
def state_of_a_rejected_path_is_kept(patch: pytest.MonkeyPatch) -> None:
    clean = RecurrentSession.commit

    def commit(self: RecurrentSession, paths: Any) -> None:
        whole = {row: path for row, path in self._reached}
        self._reached = {(row, tuple(paths[row])): self._reached[row, path] for row, path in whole.items()}
        clean(self, paths)

    patch.setattr(RecurrentSession, "commit", commit)


@bug
def state_of_a_padded_row_is_kept(patch: pytest.MonkeyPatch) -> None:
    clean = RecurrentSession._read_paths

    def read(self: RecurrentSession, forest: Any, asked: Any) -> Any:
        found = clean(self, forest, asked)
        (cache, _, span, _), *_ = self._reached.values()
        for place, (row, path) in enumerate(asked):
            self._reached[row, tuple(path)] = cache, place, span, len(found[place][0])
        return found

    patch.setattr(RecurrentSession, "_read_paths", read)


@bug
def fork_does_not_copy_the_states(patch: pytest.MonkeyPatch) -> None:
    def select(self: States, rows: Any) -> None:
        self._reserve(len(rows), 0)
        self.stored = self.stored[list(rows)]

    patch.setattr(States, "select", select)


@bug
def joining_row_finds_the_state_of_one_that_left(patch: pytest.MonkeyPatch) -> None:
    def admit(self: States, rows: int, slots: int) -> None:
        self._reserve(len(self.stored) + rows, slots)
        self.stored = np.concatenate([self.stored, np.zeros(rows, np.int64)])

    patch.setattr(States, "admit", admit)


@bug
def forwards_share_the_states_with_the_memory(patch: pytest.MonkeyPatch) -> None:
    clean = States.copies

    def copies(self: States, rows: Any) -> Any:
        cache = clean(self, rows)
        if list(rows) == list(range(len(self.stored))):
            for (layer, kind, number), state in self._states.items():
                getattr(cache.layers[layer], f"{kind}_states")[number] = state[: len(rows)]
        return cache

    patch.setattr(States, "copies", copies)


@pytest.mark.parametrize("family", ["mamba", "qwen3_next"])
@pytest.mark.parametrize("name", BUGS)
def test_tree_scoring_sees_the_planted_bug(name, family, causal):
    protocol = causal(family, "float32")
    model = Loaded(family, protocol.model, None, protocol)
    tree_scoring(model)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(LawBroken):
        BUGS[name](patch)
        for seed in range(2):
            tree_scoring(model, seed=seed)


@pytest.mark.parametrize("family", ["mamba", "jamba"])
def test_a_scan_that_forgets_its_state_is_found_out(family, network, monkeypatch):
    """Without our correction these models begin each forward of several tokens at zero, and are read anew instead."""
    monkeypatch.setattr(scans, "NAME", "no such scan")
    assert CausalModel(network(family, "float32")).states is None


@pytest.mark.parametrize("family", ["nemotron_h", "rwkv"])
def test_what_does_not_go_on_rightly_is_read_anew(family, causal, reference, ragged, decode):
    model = causal(family, "float32")
    assert model.states is None and model.capabilities.tree == "unrolled"
    decoded = decode(model, "prompt_lookup", ragged[:3], max_new_tokens=6)
    assert decoded.tokens == decode(model, "plain", ragged[:3], max_new_tokens=6).tokens


def test_scans_of_other_threads_and_later_ones_are_left_alone(network):
    model = network("mamba", "float32")
    module = __import__("sys").modules[type(model).__module__]
    scan, ids = module.mamba_selective_scan, torch.tensor([[4, 5, 6]])
    with torch.no_grad():
        alone, found = model(ids, use_cache=False).logits, []
        with scans.continuing(model, lambda: torch.full((1, 64, 8), 3.0)):
            assert module.mamba_selective_scan is not scan
            thread = threading.Thread(target=lambda: found.append(model(ids, use_cache=False).logits.detach()))
            thread.start()
            thread.join()
    assert module.mamba_selective_scan is scan
    assert torch.equal(found[0], alone)


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
@pytest.mark.parametrize("family", FAMILIES)
def test_models_with_states_are_known(family, dtype, causal):
    model = causal(family, dtype)
    assert model.states is not None and model.layout is None
    assert model.capabilities.tree == ("native" if family == "mamba2" else "unrolled")


def test_certify(network):
    model = load(network("mamba2", "float32"))
    found = certify(model, ["prompt_lookup", "speculative_sampling"], new_tokens=6, samples=20, tables=False)
    assert all(row.passed for row in found), [row.detail for row in found if not row.passed]


@pytest.mark.parametrize("family", ["mamba", "qwen3_next"])
def test_a_round_that_asks_often_holds_the_states_of_few_forwards(family, causal, twin_of):
    """A search asks a hundred times within a round; each forward leaves the states of all its rows."""
    twin = twin_of(causal(family, "float64"), PROMPTS, seed=2)
    for _ in range(2):
        forest, most = twin.forest(), 0
        for _ in range(3 * CACHES):
            twin.grow(forest, 1, shared=True)
            answers = twin.session.score(forest)
            most = max(most, len({id(cache) for cache, *_ in twin.session._reached.values()}))
        assert most == CACHES
        assert twin.error(forest, answers) <= TOLERANCE
        twin.commit(forest, 1)
        assert not twin.session._reached
