"""tw.hf.custom_generate gives what transformers' own loop gives, whatever transformers passes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from transformers import GenerationConfig, LogitsProcessorList, StoppingCriteriaList, TextIteratorStreamer
from transformers.generation import GenerateDecoderOnlyOutput, StopStringCriteria

import treewright as tw
from treewright.core.errors import CompositionError, InputError, UnknownMethod

NEW = 24
METHODS = ["plain", "token_recycling", "prompt_lookup", "jacobi"]


class Forward:
    """Counts the forwards of a model while it is open."""

    def __init__(self, network: Any) -> None:
        self.calls = 0
        self._hook = network.register_forward_hook(self._count)

    def _count(self, *arguments: Any) -> None:
        self.calls += 1

    def __enter__(self) -> Forward:
        return self

    def __exit__(self, *error: Any) -> None:
        self._hook.remove()


class Steps:
    """A streamer that remembers."""

    def __init__(self) -> None:
        self.heard: list[Any] = []

    def put(self, value: torch.Tensor) -> None:
        self.heard.append(value.tolist())

    def end(self) -> None:
        self.heard.append("end")


def forbid_by_row(ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
    """A processor of unknown type that treats each line of the batch in its own way."""
    scores = scores.clone()
    for row in range(ids.shape[0]):
        scores[row, (ids[row, -1] + row) % scores.shape[1]] = -torch.inf
    return scores


def allowed_by_row(batch: int, ids: torch.Tensor) -> list[int]:
    return [token for token in range(2, 24) if (token + batch + ids.shape[0]) % 3]


PROCESSORS: dict[str, dict[str, Any]] = {
    "none": {},
    "repetition_penalty": {"repetition_penalty": 1.4},
    "no_repeat_ngram": {"no_repeat_ngram_size": 2},
    "bad_words": {"bad_words_ids": [[5], [7, 9], [11, 3]]},
    "forced_eos": {"forced_eos_token_id": 6},
    "min_length": {"eos_token_id": [3, 4, 8], "min_new_tokens": 9},
    "sequence_bias": {"sequence_bias": [[[4], 2.0], [[6, 7], -3.0]]},
    "prefix_allowed": {"prefix_allowed_tokens_fn": allowed_by_row},
    "own": {"logits_processor": LogitsProcessorList([forbid_by_row])},
    "several": {"repetition_penalty": 1.2, "no_repeat_ngram_size": 3, "suppress_tokens": [2, 3], "eos_token_id": 9},
}


@pytest.fixture(scope="module")
def llama(network: Any) -> Any:
    return network("llama")


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("name", PROCESSORS)
def test_equals_generate(network: Any, ragged: Any, family: str, name: str) -> None:
    ids, mask = ragged
    model = network(family)
    given = {"attention_mask": mask, "max_new_tokens": NEW, "do_sample": False, **PROCESSORS[name]}
    expected = model.generate(ids, **given)
    for method in METHODS:
        found = model.generate(ids, custom_generate=tw.hf.custom_generate(method), **given)
        assert found.tolist() == expected.tolist(), method
    for row in range(len(ids)):
        assert len(set(expected[row, 12:].tolist())) > 2, "the text loops, so this test shows little"


def test_processors_change_the_text(network: Any, ragged: Any, llama: Any) -> None:
    ids, mask = ragged
    bare = llama.generate(ids, attention_mask=mask, max_new_tokens=NEW)
    for name, options in PROCESSORS.items():
        changed = llama.generate(ids, attention_mask=mask, max_new_tokens=NEW, **options)
        assert name == "none" or changed.tolist() != bare.tolist(), name


def test_several_tokens_a_forward(llama: Any) -> None:
    """Without this, cutting inside accepted blocks is never tried."""
    ids = torch.tensor([[2, 5, 9, 4]])
    with Forward(llama) as count:
        llama.generate(ids, max_new_tokens=40, custom_generate=tw.hf.custom_generate("token_recycling"))
    assert count.calls < 30


def test_end_tokens_end_rows(llama: Any, ragged: Any) -> None:
    ids, mask = ragged
    free = llama.generate(ids, attention_mask=mask, max_new_tokens=NEW)[:, 12:]
    ends = [int(free[0, 4]), int(free[1, 9])]
    given = {"attention_mask": mask, "max_new_tokens": NEW, "eos_token_id": ends, "pad_token_id": 0}
    expected = llama.generate(ids, **given)
    lengths = {int((row != 0).sum()) for row in expected[:, 12:]}
    assert len(lengths) > 1
    for method in METHODS:
        assert llama.generate(ids, custom_generate=tw.hf.custom_generate(method), **given).tolist() == expected.tolist()


class After:
    """Fires when a row has a multiple of `count` tokens of one residue, at any length from `least` on."""

    def __init__(self, count: int, least: int) -> None:
        self.count, self.least = count, least

    def __call__(self, ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        fires = ((ids % 3 == 1).sum(dim=1) % self.count == 0) & (ids.shape[1] >= self.least)
        return fires


@pytest.mark.parametrize("eos", [None, 9])
@pytest.mark.parametrize("rows", [[0], [1], [0, 1, 2, 3]])
def test_criteria_cut_at_their_token(llama: Any, ragged: Any, eos: int | None, rows: list[int]) -> None:
    """With no end token transformers lets finished rows go on until all have finished; with one it pads them."""
    ids, mask = ragged[0][rows], ragged[1][rows]
    for least in range(13, 24):
        given = {"attention_mask": mask, "max_new_tokens": NEW, "eos_token_id": eos, "pad_token_id": 0}
        given["stopping_criteria"] = StoppingCriteriaList([After(4, least)])
        expected = llama.generate(ids, **given)
        found = llama.generate(ids, custom_generate=tw.hf.custom_generate("token_recycling"), **given)
        assert found.tolist() == expected.tolist()


def tokenizer() -> Any:
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {"<pad>": 0, "<s>": 1} | {chr(ord("a") + index): index + 2 for index in range(22)}
    core = Tokenizer(models.WordLevel(words, unk_token="<pad>"))
    core.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    core.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=core, pad_token="<pad>", bos_token="<s>")


def test_stop_strings(llama: Any) -> None:
    ids, names = torch.tensor([[2, 5, 9, 4]]), tokenizer()
    text = names.decode(llama.generate(ids, max_new_tokens=NEW)[0, 4:])
    stops = [text[start : start + 2] for start in range(0, 16, 3)]
    for stop in stops:
        criteria = StoppingCriteriaList([StopStringCriteria(names, [stop])])
        given = {"max_new_tokens": NEW, "stopping_criteria": criteria}
        expected = llama.generate(ids, **given)
        assert expected.shape[1] < 4 + NEW
        found = llama.generate(ids, custom_generate=tw.hf.custom_generate("token_recycling"), **given)
        assert found.tolist() == expected.tolist()


@pytest.mark.parametrize("rows", [[2], [0, 1, 2, 3]])
@pytest.mark.parametrize("eos", [None, 9])
def test_streamer_hears_the_same_steps(llama: Any, ragged: Any, rows: list[int], eos: int | None) -> None:
    ids, mask = ragged[0][rows], ragged[1][rows]
    given = {"attention_mask": mask, "max_new_tokens": NEW, "eos_token_id": eos, "pad_token_id": 0}
    given["stopping_criteria"] = StoppingCriteriaList([After(4, 20)])
    heard = []
    for custom in (None, tw.hf.custom_generate("token_recycling")):
        steps = Steps()
        llama.generate(ids, custom_generate=custom, streamer=steps, **given)
        heard.append(steps.heard)
    assert heard[0][-1] == "end" and len(heard[0]) > 4
    assert heard[1] == heard[0]


def test_text_streamer(llama: Any) -> None:
    ids, names = torch.tensor([[2, 5, 9, 4]]), tokenizer()
    texts = []
    for custom in (None, tw.hf.custom_generate("token_recycling")):
        streamer = TextIteratorStreamer(names, skip_prompt=True, timeout=10.0)
        llama.generate(ids, custom_generate=custom, streamer=streamer, max_new_tokens=NEW)
        texts.append("".join(streamer))
    assert len(texts[0]) > 5 and texts[1] == texts[0]


def test_output_object(llama: Any, ragged: Any) -> None:
    ids, mask = ragged
    given = {"attention_mask": mask, "max_new_tokens": 5, "return_dict_in_generate": True}
    found = llama.generate(ids, custom_generate=tw.hf.custom_generate("token_recycling"), **given)
    assert isinstance(found, GenerateDecoderOnlyOutput) and found.scores is None
    assert found.sequences.tolist() == llama.generate(ids, **given).sequences.tolist()


def test_generation_config_object(llama: Any) -> None:
    ids = torch.tensor([[2, 5, 9, 4]])
    config = GenerationConfig(max_length=15, repetition_penalty=1.3, eos_token_id=7, pad_token_id=0)
    found = llama.generate(ids, generation_config=config, custom_generate=tw.hf.custom_generate())
    assert found.tolist() == llama.generate(ids, generation_config=config).tolist()


def test_draft_model(network: Any, llama: Any, ragged: Any) -> None:
    ids, mask = ragged
    custom = tw.hf.custom_generate("speculative_sampling", models={"draft": network("llama", shaken=0.02)})
    expected = llama.generate(ids, attention_mask=mask, max_new_tokens=NEW)
    assert llama.generate(ids, attention_mask=mask, max_new_tokens=NEW, custom_generate=custom).tolist() == expected.tolist()


def test_seeds_and_samples(llama: Any, ragged: Any) -> None:
    ids, mask = ragged
    given = {"attention_mask": mask, "max_new_tokens": 12, "do_sample": True, "top_k": 8, "num_return_sequences": 3}
    drawn = {}
    for method in METHODS:
        for seed in (1, 2):
            torch.manual_seed(seed)
            drawn[method, seed] = llama.generate(ids, custom_generate=tw.hf.custom_generate(method), **given).tolist()
    first = drawn["plain", 1]
    assert len(first) == 12 and len({tuple(row) for row in first}) == 12
    assert drawn["plain", 2] != first
    assert all(found == drawn["plain", seed] for (_, seed), found in drawn.items())


def test_seed_moves_on_and_greedy_leaves_it(llama: Any) -> None:
    ids, custom = torch.tensor([[2, 5, 9, 4]]), tw.hf.custom_generate("token_recycling")
    torch.manual_seed(3)
    before = torch.get_rng_state()
    llama.generate(ids, max_new_tokens=4, custom_generate=custom)
    assert torch.equal(torch.get_rng_state(), before)
    draws = [llama.generate(ids, max_new_tokens=12, do_sample=True, custom_generate=custom).tolist() for _ in range(2)]
    assert draws[0] != draws[1]


@pytest.mark.parametrize("method", ["token_recycling", "speculative_sampling"])
def test_sampling_law(network: Any, method: str) -> None:
    """Two tokens drawn 3000 times against the enumerated law: honest draws are about 0.02 away from it, and draws whose
    second token does not depend on the first 0.3."""
    model, draft = network("llama", vocabulary=6), network("llama", 1, vocabulary=6)
    ids, samples = torch.tensor([[2, 5, 3, 4]]), 3000
    given: dict[str, Any] = {"do_sample": True, "temperature": 0.7, "top_k": 4, "repetition_penalty": 1.3}
    law = np.zeros((6, 6))
    config = GenerationConfig(**given)
    config._eos_token_tensor = None
    processors = model._get_logits_processor(config, 4, device="cpu")
    with torch.no_grad():
        for first in range(6):
            line = torch.cat([ids, torch.tensor([[first]])], dim=1)
            logits = model(line).logits[0]
            one = processors(ids, logits[3:4].clone()).softmax(-1)[0]
            law[first] = float(one[first]) * processors(line, logits[4:5].clone()).softmax(-1)[0].numpy()
    models = {"draft": draft} if method == "speculative_sampling" else None
    torch.manual_seed(11)
    custom = tw.hf.custom_generate(method, models=models)
    found = model.generate(ids, max_new_tokens=2, num_return_sequences=samples, custom_generate=custom, **given)
    counts = np.zeros((6, 6))
    np.add.at(counts, (found[:, 4].numpy(), found[:, 5].numpy()), 1)
    assert abs(law.sum() - 1) < 1e-5
    assert np.abs(counts / samples - law).sum() / 2 < 0.06


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"num_beams": 2}, "num_beams is 2"),
    ({"prompt_lookup_num_tokens": 3}, "assisted_generation"),
    ({"penalty_alpha": 0.6, "top_k": 4}, "contrastive_search"),
    ({"return_dict_in_generate": True, "output_scores": True}, "output_scores is set"),
    ({"return_dict_in_generate": True, "output_logits": True}, "output_logits is set"),
    ({"return_dict_in_generate": True, "output_attentions": True}, "output_attentions is set"),
    ({"return_dict_in_generate": True, "output_hidden_states": True}, "output_hidden_states is set"),
    ({"cache_implementation": "static"}, "cache_implementation is 'static'"),
    ({"use_cache": False}, "use_cache is False"),
    ({"synced_gpus": True}, "synced_gpus is True"),
    ({"attention_mask": torch.tensor([[1, 1, 1, 0]])}, "pad on the left"),
    ({"attention_mask": torch.tensor([[1, 0, 1, 1]])}, "pad on the left"),
    ({"position_ids": torch.tensor([[3, 4, 5, 6]])}, "position_ids"),
]


@pytest.mark.parametrize(("options", "words"), REFUSED, ids=[words for _, words in REFUSED])
def test_refuses_what_it_cannot_honour(llama: Any, options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        llama.generate(torch.tensor([[2, 5, 9, 4]]), max_new_tokens=4, custom_generate=tw.hf.custom_generate(), **options)


def test_refuses_assistant_cache_embeddings_and_extra_inputs(network: Any, llama: Any) -> None:
    from transformers import DynamicCache

    ids, custom = torch.tensor([[2, 5, 9, 4]]), tw.hf.custom_generate()
    with pytest.raises(InputError, match="assistant_model"):
        llama.generate(ids, max_new_tokens=4, assistant_model=llama, custom_generate=custom)
    with pytest.raises(InputError, match="past_key_values"):
        llama.generate(ids, max_new_tokens=4, past_key_values=DynamicCache(), custom_generate=custom)
    with pytest.raises(InputError, match="inputs_embeds"):
        llama.generate(inputs_embeds=llama.get_input_embeddings()(ids), max_new_tokens=4, custom_generate=custom)
    with pytest.raises(InputError, match="token_type_ids"):
        network("gpt2").generate(ids, max_new_tokens=4, token_type_ids=ids, custom_generate=custom)


def test_refuses_processors_with_state(llama: Any) -> None:
    with pytest.raises(CompositionError, match="UnbatchedClassifierFreeGuidance"):
        ids = torch.tensor([[2, 5, 9, 4]])
        llama.generate(ids, max_new_tokens=4, guidance_scale=1.5, custom_generate=tw.hf.custom_generate())


def test_dead_end_is_an_error(llama: Any) -> None:
    def nothing_after_three(ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        return scores if ids.shape[1] < 7 else torch.full_like(scores, -torch.inf)

    with pytest.raises(InputError, match="no token for row 0 after 3 new tokens"):
        llama.generate(
            torch.tensor([[2, 5, 9, 4]]), max_new_tokens=9, logits_processor=LogitsProcessorList([nothing_after_three]),
            custom_generate=tw.hf.custom_generate(),
        )  # fmt: skip


def test_context_limit_is_said(network: Any) -> None:
    model = network("gpt2", n_positions=16)
    ids = torch.tensor([[2, 5, 9, 4]])
    with pytest.warns(UserWarning, match="16 positions"):
        found = model.generate(ids, max_new_tokens=40, custom_generate=tw.hf.custom_generate())
    assert found.tolist() == model.generate(ids, max_new_tokens=12).tolist()


def test_unknown_names_are_refused_at_once() -> None:
    with pytest.raises(UnknownMethod, match="token_recycling"):
        tw.hf.custom_generate("token_recyclin")


def test_follows_the_model_it_is_called_on(network: Any, llama: Any) -> None:
    ids, custom = torch.tensor([[2, 5, 9, 4]]), tw.hf.custom_generate("token_recycling")
    for model in (llama, network("gpt2"), llama.to(torch.float64), llama.to(torch.float32)):
        expected = model.generate(ids, max_new_tokens=9)
        assert model.generate(ids, max_new_tokens=9, custom_generate=custom).tolist() == expected.tolist()
