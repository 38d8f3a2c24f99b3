"""Masked models: canvases against bare forwards, ragged batches, shifts, forbidden ids, windows, families by configuration."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertForMaskedLM, ModernBertConfig, ModernBertForMaskedLM

from treewright.api import generate, stream
from treewright.core.claims import ABSENT, Forest
from treewright.core.errors import CapabilityError, ConstraintError, InputError, ModelError
from treewright.core.grammar import regex
from treewright.core.session import Opening
from treewright.core.text import Text
from treewright.models.causal import CausalModel
from treewright.models.loading import load
from treewright.models.masked import MaskedModel
from treewright.models.random_weights import random_masked
from treewright.testing.certify import certify

PROMPTS = [[3], [1, 2, 3, 4, 5], [7, 8]]
SLOTS = 4


def masked(seed: int = 0, **options) -> MaskedModel:
    network = random_masked(seed=seed)
    return MaskedModel(network, network.config.mask_token_id, **options)


def bert() -> BertForMaskedLM:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=20, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=32, initializer_range=0.5, attn_implementation="eager",
    )  # fmt: skip
    return BertForMaskedLM(config).double().eval()


def modern_bert() -> ModernBertForMaskedLM:
    torch.manual_seed(0)
    config = ModernBertConfig(
        vocab_size=20, hidden_size=16, num_hidden_layers=3, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=32, initializer_range=0.5, pad_token_id=0, bos_token_id=0, eos_token_id=0, cls_token_id=0,
        sep_token_id=0,
    )  # fmt: skip
    return ModernBertForMaskedLM(config).double().eval()


class Opened:
    """A session over ragged prompts with its text and the calls it reported."""

    def __init__(self, model: MaskedModel, prompts=PROMPTS, reuse: bool = False) -> None:
        limits = [len(prompt) + SLOTS for prompt in prompts]
        self.model, self.calls = model, []
        self.text = Text(max(limits), model.mask)
        opening = Opening(8, len(prompts), max(limits), reuse=reuse)
        self.session = model.open(self.text, opening, lambda kind, rows, columns, *_: self.calls.append((rows, columns)))
        self.text.admit(prompts, limits)
        self.session.admit(self.text, prompts)

    def forest(self) -> Forest:
        return Forest(self.text.frontier())

    def slots(self, row: int) -> list[int]:
        return list(range(int(self.text.prompt[row]), int(self.text.length[row])))

    def bare(self, canvas: np.ndarray, shift: bool = False) -> torch.Tensor:
        """Logits of a canvas by the network's own forward, alone."""
        with torch.no_grad():
            logits = self.model.network(input_ids=torch.from_numpy(canvas.copy())[None]).logits[0]
        return logits.roll(1, 0) if shift else logits


@pytest.mark.parametrize("make", [random_masked, bert, modern_bert])
def test_a_ragged_batch_of_chains_is_answered_as_each_canvas_alone(make) -> None:
    network = make()
    opened = Opened(MaskedModel(network, network.config.vocab_size - 1))
    forest = opened.forest()
    first = opened.text.prompt[:, None]
    forest.grow([0, 1, 0], np.array([[2, 5, 4]] * 3), slots=np.add(first, [[0, 2, 3]]))
    field = opened.session.score(forest).field
    for row in range(3):
        for column in range(4):
            canvas = forest.canvas(opened.text.of(row), row, column)
            expected = opened.bare(canvas)[opened.slots(row)]
            seen = field.logits(row, column, opened.slots(row))
            assert torch.allclose(seen[:, : network.config.vocab_size - 1], expected[:, :-1], atol=1e-12)
            assert (seen[:, -1] == -torch.inf).all()
    assert opened.calls == [(12, 9)]


def test_a_committed_canvas_is_not_asked_again_and_claims_are_live_until_then() -> None:
    opened = Opened(masked())
    opened.session.root()
    forest, first = opened.forest(), opened.text.prompt[:, None]
    forest.grow([0, 1], np.array([[2, 5]] * 3), slots=np.add(first, [[0, 2]]))
    field = opened.session.score(forest).field
    assert opened.calls == [(3, 9), (6, 9)]
    for row in range(3):
        opened.text.fill(row, int(first[row, 0]), 2)
    opened.session.commit([[1]] * 3)
    root = opened.session.root().field
    assert opened.calls == [(3, 9), (6, 9)]
    assert torch.equal(root.logits(1, 0, opened.slots(1)), field.logits(1, 1, opened.slots(1)))


def test_claims_that_are_not_asked_or_absent_cost_nothing() -> None:
    opened = Opened(masked())
    forest, first = opened.forest(), opened.text.prompt[:, None]
    token = np.array([[2, 5], [2, ABSENT], [2, 5]])
    forest.grow([0, 1], token, slots=np.add(first, [[0, 2]]), asked=[False, True])
    field = opened.session.score(forest).field
    assert opened.calls == [(5, 9)]
    with pytest.raises(KeyError):
        field.logits(0, 1, [opened.slots(0)[0]])
    with pytest.raises(KeyError):
        field.logits(1, 2, [opened.slots(1)[0]])


def test_forks_and_drops_take_their_answers_along() -> None:
    opened = Opened(masked())
    root = opened.session.root().field
    for order in ([2, 0, 2], [1, 0]):
        before = [opened.text.of(row).tolist() for row in range(opened.text.rows)]
        opened.text.select(order)
        opened.session.select(order)
        assert [opened.text.of(row).tolist() for row in range(len(order))] == [before[row] for row in order]
    field = opened.session.root().field
    assert len(opened.calls) == 1
    assert torch.equal(field.logits(1, 0, [2, 3]), root.logits(2, 0, [2, 3]))


def test_a_shifted_model_is_read_one_place_to_the_left() -> None:
    opened = Opened(masked(shift=True))
    field = opened.session.root().field
    for row in range(3):
        expected = opened.bare(opened.text.of(row), shift=True)[opened.slots(row)]
        assert torch.allclose(field.logits(row, 0, opened.slots(row))[:, :-1], expected[:, :-1], atol=1e-12)


@pytest.mark.parametrize("shift", [False, True])
def test_a_window_over_an_unchanged_canvas_gives_the_whole_forwards_answer(shift) -> None:
    opened = Opened(masked(shift=shift), reuse=True)
    whole = opened.session.root().field
    opened.session.commit([[]] * 3)
    opened.session._known = [None] * 3  # the canvas is the same; make the session compute it again
    forest = opened.forest()
    forest.window = np.stack([opened.text.prompt + 1, np.add(opened.text.prompt, [2, 4, 3])], axis=1)
    field = opened.session.score(forest).field
    assert opened.calls[1:] == [(3, 3 + shift)]
    for row in range(3):
        slots = list(range(*forest.window[row].tolist()))
        assert torch.allclose(field.logits(row, 0, slots)[:, :-1], whole.logits(row, 0, slots)[:, :-1], atol=1e-12)


def test_an_answer_is_kept_for_the_slots_that_it_is_about_and_no_others() -> None:
    """The canvas stays as it is; what a window gave is no answer to another window, nor to a whole forward."""
    opened = Opened(masked(), [[3, 4]], reuse=True)
    whole = opened.session.root().field.logits(0, 0, opened.slots(0))
    for window, calls in (([2, 4], 2), ([2, 4], 2), ([4, 6], 3), ([0, 6], 4)):
        opened.session.commit([[]])
        forest = opened.forest()
        forest.window = np.array([window])
        slots = list(range(max(2, window[0]), window[1]))
        seen = opened.session.score(forest).field.logits(0, 0, slots)
        assert torch.allclose(seen[:, :-1], whole[[slot - 2 for slot in slots], :-1], atol=1e-12)
        assert len(opened.calls) == calls


def test_what_a_window_reuses_is_of_the_rows_own_last_whole_forward() -> None:
    """A claim's answer becomes the row's; its forward kept nothing, so the next whole round must be one."""
    opened = Opened(masked(), [[3, 4]], reuse=True)
    opened.session.root()
    forest = opened.forest()
    forest.grow([0], np.array([[5]]), slots=np.array([[2]]))
    opened.session.score(forest)
    opened.text.fill(0, 2, 5)
    opened.session.commit([[1]])
    expected = opened.session.root().field.logits(0, 0, [4, 5])
    opened.session.commit([[]])
    forest = opened.forest()
    forest.window = np.array([[4, 6]])
    seen = opened.session.score(forest).field.logits(0, 0, [4, 5])
    assert torch.allclose(seen[:, :-1], expected[:, :-1], atol=1e-12)


def test_a_window_reads_what_it_holds_and_keeps_the_rest_as_it_was() -> None:
    """One layer: keys and values are functions of their own slot, so stale ones are those of the old token."""
    network = random_masked()
    network.model.layers = network.model.layers[:1]
    opened = Opened(MaskedModel(network, network.config.mask_token_id), [[3, 4]], reuse=True)
    opened.session.root()
    opened.text.fill(0, 2, 5)
    opened.text.fill(0, 5, 6)
    opened.session.commit([[]])
    stale = opened.text.of(0).copy()
    stale[5] = opened.model.mask
    forest = opened.forest()
    forest.window = np.array([[2, 5]])
    seen = opened.session.score(forest).field.logits(0, 0, [2, 3, 4])
    assert torch.allclose(seen[:, :-1], opened.bare(stale)[2:5, :-1], atol=1e-12)
    assert not torch.allclose(seen[:, :-1], opened.bare(opened.text.of(0))[2:5, :-1], atol=1e-3)


def test_a_window_is_its_definition_layer_by_layer() -> None:
    """Outside of the window every layer reads the states that the last whole forward had there."""
    opened = Opened(masked(3), [[3, 4, 5]], reuse=True)
    opened.session.root()
    network = opened.model.network
    with torch.no_grad():
        stale = network(input_ids=torch.from_numpy(opened.text.of(0).copy())[None], output_hidden_states=True).hidden_states
        for slot, token in ((3, 7), (5, 2)):
            opened.text.fill(0, slot, token)
        opened.session.commit([[]])
        fresh = network.model.embed_tokens(torch.from_numpy(opened.text.of(0).copy())[None])
        rotary = network.model.rotary_emb(fresh, torch.arange(fresh.shape[1])[None])
        for layer, before in zip(network.model.layers, stale, strict=False):
            mixed = before.clone()
            mixed[:, 3:6] = fresh[:, 3:6]
            fresh = layer(mixed, attention_mask=None, position_embeddings=rotary)
        expected = network.lm_head(network.model.norm(fresh))[0, 3:6, :-1]
    forest = opened.forest()
    forest.window = np.array([[3, 6]])
    seen = opened.session.score(forest).field.logits(0, 0, [3, 4, 5])[:, :-1]
    assert torch.allclose(seen, expected, atol=1e-12)
    assert not torch.allclose(seen, opened.bare(opened.text.of(0))[3:6, :-1], atol=1e-3)


def test_only_what_is_reused_is_kept() -> None:
    exact, reusing = Opened(masked()), Opened(masked(), reuse=True)
    exact.session.root(), reusing.session.root()
    assert exact.session.cache_bytes() == 0
    assert reusing.session.cache_bytes() == sum(len(prompt) + SLOTS for prompt in PROMPTS) * 16 * 2 * 2 * 8


def test_a_model_that_takes_no_cache_says_so(decode) -> None:
    model = MaskedModel(modern_bert(), 19)
    with pytest.raises(CapabilityError, match="ModernBertForMaskedLM takes no keys and values from outside"):
        decode(model, "fast_dllm", [[1]], {"cache": "dual"}, max_new_tokens=4)


def test_ids_the_tokenizer_does_not_know_and_the_mask_are_never_emitted(decode) -> None:
    """The whole vocabulary is used without a limit, nothing beyond `known` with one."""
    prompts = [[1], [2], [3]]
    free = decode(masked(), "llada", prompts, max_new_tokens=12).tokens
    kept = decode(masked(known=6), "llada", prompts, max_new_tokens=12).tokens
    assert max(map(max, free)) >= 6 and max(map(max, kept)) < 6
    assert masked(known=6).forbidden == list(range(6, 24))


def test_a_model_with_code_of_its_own_is_given_as_an_object(decode) -> None:
    """A module that is no transformers class and gives bare logits."""
    network = random_masked()

    class Own(torch.nn.Module):
        config = SimpleNamespace(vocab_size=24, max_sequence_length=16)

        def __init__(self) -> None:
            super().__init__()
            self.inner = network

        def forward(self, input_ids, attention_mask=None):
            return self.inner(input_ids=input_ids, attention_mask=attention_mask).logits

    model = MaskedModel(Own(), 23)
    assert model.capabilities.max_length == 16
    assert load(model).protocol is model
    assert decode(model, "llada", PROMPTS, max_new_tokens=5).tokens == decode(masked(), "llada", PROMPTS, max_new_tokens=5).tokens


class Words:
    """As much of a tokenizer as loading looks at."""

    def __init__(self, mask: int | None, size: int) -> None:
        self.mask_token_id, self._size = mask, size

    def __len__(self) -> int:
        return self._size


def test_the_configuration_says_the_family() -> None:
    found = load(random_masked()).protocol
    assert isinstance(found, MaskedModel) and found.capabilities.order == "any" and not found.shift
    with pytest.raises(ModelError, match=r"names no mask token; set config\.mask_token_id"):
        load(bert())
    named = load(bert(), Words(4, 18)).protocol
    assert isinstance(named, MaskedModel) and named.mask == 4 and named.forbidden == [4, 18, 19]
    dream = random_masked()
    dream.config.model_type = "Dream"
    assert load(dream).protocol.shift
    with pytest.raises(ModelError, match="compile was asked for"):
        load(random_masked(), compile=True)
    with pytest.raises(ModelError, match="mask token 24 is not one of the model's 24 ids"):
        MaskedModel(random_masked(), 24)


def test_a_saved_masked_model_is_loaded_as_one(tmp_path) -> None:
    random_masked().save_pretrained(tmp_path)
    assert isinstance(load(str(tmp_path), Words(None, 24)).protocol, MaskedModel)
    assert isinstance(load("random:tiny").protocol, CausalModel)


def test_methods_and_requests_that_do_not_fit_are_refused() -> None:
    model = load(random_masked())
    with pytest.raises(CapabilityError, match=r"'plain' needs left_to_right.*methods that fit it: .*llada"):
        generate(model, [1], "plain")
    with pytest.raises(CapabilityError, match="needs left_to_right"):
        generate(model, [1], "llada+momentum")
    with pytest.raises(ConstraintError, match="fills slots in any order; use a causal model"):
        generate(model, [1], "llada", constraint=regex("a+"))
    with pytest.raises(InputError, match="logprobs is True"):
        generate(model, [1], "llada", logprobs=True)
    with pytest.raises(InputError, match="prompt 1 holds the mask token 23"):
        generate(model, [[1], [2, 23]], "llada")


def test_the_bundled_model_does_its_lists_and_free_dave_follows_in_fewer_calls() -> None:
    model = load("default-masked", dtype="float32")
    prompts = [f"List: star bird dog cat\n{what}:" for what in ("Sort the list", "Reverse the list", "Remove item 2")]
    settings = {"max_new_tokens": 8, "batch_rows": 1}
    static = generate(model, prompts, "llada", **settings)
    assert [done.text for done in static] == [" bird cat dog star", " cat dog bird star", " star dog cat"]
    ours = generate(model, prompts, "free_dave", **settings)
    assert [done.tokens for done in ours] == [done.tokens for done in static]
    assert sum(done.trace.model_calls for done in ours) < sum(done.trace.model_calls for done in static) == 24


def test_what_is_certified_is_the_static_decoding() -> None:
    rows = certify(load(random_masked()), new_tokens=4, tables=False)
    assert {row.method for row in rows} == {"free_dave"} and all(row.passed for row in rows)


def test_text_comes_out_as_it_is_settled() -> None:
    """Stop strings cut the text; a stream's pieces are the text; each is settled when it comes."""
    alphabet = "abcdefghijklmnopqrstuvw"

    class Letters:
        mask_token_id = 23
        eos_token_id = None

        def __len__(self) -> int:
            return 24

        def __call__(self, text, **_):
            return {"input_ids": [alphabet.index(letter) for letter in text]}

        def decode(self, ids, **_):
            return "".join(alphabet[int(token)] for token in ids)

    model = load(random_masked(), Letters())  # type: ignore[arg-type]
    whole = generate(model, [1], "llada", {"block": 3}, max_new_tokens=12).text  # type: ignore[union-attr]
    pieces = list(stream(model, [1], "llada", options={"block": 3}, max_new_tokens=12))
    assert "".join(pieces) == whole and len(pieces) > 1 and len(whole) == 12
    stopped = generate(model, [1], "llada", {"block": 3}, max_new_tokens=12, stop=whole[4:6])
    assert stopped.text == whole[: whole.index(whole[4:6])] and stopped.finish_reason == "stop"  # type: ignore[union-attr]
    assert stopped.trace.model_calls < 12  # type: ignore[union-attr]
