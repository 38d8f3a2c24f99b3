"""Encoder-decoders: every method writes what transformers' own greedy decoding writes, and trees are scored as paths are."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import tokenizers
import torch
import transformers as t

import treewright as tw
from treewright.core.errors import ContextError, InputError, ModelError
from treewright.models.encoder_decoder import EncoderDecoderModel
from treewright.models.loading import Form, load
from treewright.testing.laws import tree_scoring

VOCABULARY, CONTEXT, TOKENS = 97, 160, 12
RANDOM = np.random.default_rng(0)
PROMPTS = [RANDOM.integers(3, 90, size=size).tolist() for size in (1, 3, 12, 7, 20)]
NAMES = ["bart", "mbart", "marian", "pegasus", "t5", "mt5", "umt5"]
METHODS: dict[str, dict[str, Any]] = {
    "plain": {},
    "prompt_lookup": {"max_ngram": 2},
    "token_recycling": {"nodes": 24},
    "jacobi": {"block": 4},
    "lookahead": {"level": 4, "window": 4, "guesses": 4},
    "speculative_sampling": {"tokens": 3},
    "specinfer": {"expansion": (2, 2, 1)},
}
DRAFTED = {"speculative_sampling", "specinfer"}


def recipe(name: str) -> tuple[Any, Any, int]:
    """The model class, a configuration wide enough that texts differ, and a seed."""
    absolute = dict(
        vocab_size=VOCABULARY, d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4,
        decoder_attention_heads=4, encoder_ffn_dim=48, decoder_ffn_dim=48, max_position_embeddings=CONTEXT,
        tie_word_embeddings=False, forced_eos_token_id=None,
    )  # fmt: skip
    relative = dict(
        vocab_size=VOCABULARY, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4, relative_attention_num_buckets=8,
        relative_attention_max_distance=16, tie_word_embeddings=False, pad_token_id=0, eos_token_id=1, decoder_start_token_id=0,
    )  # fmt: skip
    bart = dict(pad_token_id=1, bos_token_id=0, eos_token_id=2, decoder_start_token_id=2)
    marian = dict(pad_token_id=96, eos_token_id=0, decoder_start_token_id=96)
    pegasus = dict(pad_token_id=0, eos_token_id=1, decoder_start_token_id=0)
    return {
        "bart": lambda: (t.BartForConditionalGeneration, t.BartConfig(**absolute, **bart, init_std=0.6), 0),
        "mbart": lambda: (t.MBartForConditionalGeneration, t.MBartConfig(**absolute, **bart, init_std=1.0), 2),
        "marian": lambda: (t.MarianMTModel, t.MarianConfig(**absolute, **marian, init_std=1.5), 3),
        "pegasus": lambda: (t.PegasusForConditionalGeneration, t.PegasusConfig(**absolute, **pegasus, init_std=1.0), 2),
        "t5": lambda: (t.T5ForConditionalGeneration, t.T5Config(**relative, initializer_factor=6.0), 2),
        "mt5": lambda: (t.MT5ForConditionalGeneration, t.MT5Config(**relative, initializer_factor=3.0), 0),
        "umt5": lambda: (t.UMT5ForConditionalGeneration, t.UMT5Config(**relative, initializer_factor=3.0), 4),
    }[name]()


@cache
def build(name: str, dtype: str = "float32") -> Any:
    """A transformers model; the same weights whatever the dtype."""
    kind, config, seed = recipe(name)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = kind(config).eval().to(getattr(torch, dtype))
    model.generation_config.eos_token_id = None
    return model


@cache
def perturbed(name: str, dtype: str = "float32") -> Any:
    """A draft that agrees with the model now and then."""
    model = copy.deepcopy(build(name, dtype))
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for weight in model.parameters():
            noise = torch.randn(weight.shape, generator=generator, dtype=torch.float64).to(weight.dtype)
            weight += 0.05 * weight.std(correction=0) * noise
    return model


@cache
def loaded(name: str, dtype: str = "float32", draft: bool = False) -> tw.Loaded:
    return load(perturbed(name, dtype) if draft else build(name, dtype))


def theirs(model: Any, prompt: list[int], **settings: Any) -> list[int]:
    """transformers' greedy continuation of one prompt, the start token left out."""
    settings = {
        "max_new_tokens": TOKENS,
        "do_sample": False,
        "num_beams": 1,
        "pad_token_id": model.config.pad_token_id,
    } | settings
    ids = torch.tensor([prompt])
    with torch.no_grad():
        return model.generate(ids, attention_mask=torch.ones_like(ids), **settings)[0, 1:].tolist()


@cache
def reference(name: str, dtype: str) -> list[list[int]]:
    return [theirs(build(name, dtype), prompt) for prompt in PROMPTS]


def ours(target: tw.Loaded, method: str = "plain", prompts: Any = PROMPTS, **settings: Any) -> list[list[int]]:
    name = next((n for n in NAMES if loaded(n).model.config.model_type == target.model.config.model_type), None)
    dtype = str(target.model.dtype).removeprefix("torch.")
    models = {"draft": loaded(name, dtype, draft=True)} if method in DRAFTED and name else None
    results = tw.generate(
        target, [list(prompt) for prompt in prompts], method, METHODS.get(method), models, **{"max_new_tokens": TOKENS} | settings
    )
    return [result.tokens for result in results]


def with_generation(name: str, **fields: Any) -> Any:
    """A copy of the model whose generation configuration has these fields."""
    model = copy.deepcopy(build(name))
    for field, value in fields.items():
        setattr(model.generation_config, field, value)
    return model


@pytest.mark.parametrize("name", NAMES)
def test_reference_texts_differ_and_see_their_prompts(name):
    texts = reference(name, "float32")
    assert len({tuple(text) for text in texts}) == len(PROMPTS)
    assert len({token for text in texts for token in text}) >= 8


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", NAMES)
def test_greedy_equals_transformers(name, method):
    assert ours(loaded(name), method) == reference(name, "float32")


@pytest.mark.parametrize("method", ["plain", "token_recycling", "specinfer"])
@pytest.mark.parametrize("name", ["bart", "marian", "t5"])
def test_greedy_equals_transformers_in_float64(name, method):
    assert ours(loaded(name, "float64"), method) == reference(name, "float64")


def test_drafts_are_accepted():
    """The equalities above would mean little if no draft had ever been accepted."""
    for method in METHODS.keys() - {"plain"}:
        models = {"draft": loaded("bart", draft=True)} if method in DRAFTED else None
        results = tw.generate(loaded("bart"), PROMPTS, method, METHODS[method], models, max_new_tokens=20)
        assert sum(len(step.accepted) for result in results for step in result.trace.steps) > 5, method


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("name", NAMES)
def test_trees_are_scored_as_paths_are(name, attention):
    """Random trees, absent claims, several blocks, rows forked, dropped and joining, pending runs: against bare forwards."""
    model = copy.deepcopy(build(name, "float64"))
    model.set_attn_implementation(attention)
    report = tree_scoring(load(model))
    assert report.claims > 100 and report.relative < 1e-9


@pytest.mark.parametrize("name", ["bart", "t5"])
def test_long_backlogs_are_swallowed(name):
    """A draft that is asked only now and then has more pending tokens than scratch slots."""
    from treewright.core.session import Opening
    from treewright.core.text import Text
    from treewright.testing.scoring import bare_reference, no_record

    model, new = loaded(name, "float64"), RANDOM.integers(3, 90, size=50).tolist()
    text = Text(120)
    text.admit([PROMPTS[2], PROMPTS[4]], [100, 100])
    session = model.protocol.open(text, Opening(4, 2, 100), no_record)
    session.admit(text, [PROMPTS[2], PROMPTS[4]])
    text.append(0, new)
    text.append(1, new[:3])
    root = session.root()
    for row, (prompt, written) in enumerate([(PROMPTS[2], new), (PROMPTS[4], new[:3])]):
        assert np.abs(root.row(row, 0) - bare_reference(model)(prompt, written)).max() < 1e-9


@pytest.mark.parametrize("name", ["bart", "t5"])
@pytest.mark.parametrize("method", ["prompt_lookup", "token_recycling", "jacobi", "lookahead"])
def test_sampled_text_is_that_of_plain_decoding(name, method):
    settings = dict(temperature=0.9, top_p=0.95, seed=3, n=2)
    assert ours(loaded(name, "float64"), method, **settings) == ours(loaded(name, "float64"), "plain", **settings)


@pytest.mark.parametrize("method", ["plain", "token_recycling", "specinfer"])
@pytest.mark.parametrize("name", ["marian", "t5"])
def test_a_row_alone_equals_the_row_in_a_batch(name, method):
    """And rows that wait for a place, at temperature 0 where a row's noise does not depend on its number."""
    together = ours(loaded(name, "float64"), method, batch_rows=2)
    assert together == [ours(loaded(name, "float64"), method, [prompt])[0] for prompt in PROMPTS]


@pytest.mark.parametrize("name", ["bart", "t5", "marian"])
@pytest.mark.parametrize("method", ["plain", "token_recycling"])
def test_penalties_leave_the_encoder_s_prompt_out(name, method):
    found = ours(loaded(name), method, repetition_penalty=1.7)
    assert found == [theirs(build(name), prompt, repetition_penalty=1.7) for prompt in PROMPTS]
    assert found != reference(name, "float32")


@pytest.mark.parametrize("method", ["plain", "token_recycling"])
def test_min_new_tokens(method):
    end = reference("mt5", "float32")[2][3]
    model = with_generation("mt5", eos_token_id=end)
    expected = [theirs(model, prompt, min_new_tokens=9) for prompt in PROMPTS]
    assert ours(load(model), method, min_new_tokens=9) == expected
    assert ours(load(model), method) == [theirs(model, prompt) for prompt in PROMPTS] != expected


@pytest.mark.parametrize("method", ["plain", "token_recycling", "speculative_sampling"])
@pytest.mark.parametrize("name", ["bart", "t5"])
def test_fixed_and_banned_tokens(name, method):
    """Forced first and last tokens, a banned token (Marian's padding) and a banned pair, as transformers has them."""
    text = reference(name, "float32")[2]
    fields = dict(
        forced_bos_token_id=11, forced_eos_token_id=5, eos_token_id=5,
        bad_words_ids=[[text[0]], [11, reference(name, "float32")[0][1]]],
    )  # fmt: skip
    model = with_generation(name, **fields)
    target = load(model)
    assert target.form == Form(11, 5, tuple(map(tuple, fields["bad_words_ids"])))
    expected = [theirs(model, prompt) for prompt in PROMPTS]
    assert ours(target, method) == expected
    assert all(text[0] == 11 and text[-1] == 5 for text in expected)
    assert text[0] not in {token for text in expected for token in text}


def test_a_batch_padded_by_transformers_gives_the_same():
    model = build("bart")
    width = max(map(len, PROMPTS))
    ids = torch.tensor([[*prompt, *[1] * (width - len(prompt))] for prompt in PROMPTS])
    mask = torch.tensor([[1] * len(prompt) + [0] * (width - len(prompt)) for prompt in PROMPTS])
    out = model.generate(ids, attention_mask=mask, max_new_tokens=TOKENS, do_sample=False, pad_token_id=1)
    assert out[:, 1:].tolist() == ours(loaded("bart"))


def test_a_prompt_is_encoded_once_for_all_its_samples():
    result = tw.generate(loaded("t5"), PROMPTS[2], n=4, temperature=1.0, max_new_tokens=5)
    encoded = [(call.rows, call.columns) for call in result.trace.calls if call.kind == "encode"]
    assert encoded == [(1, 12)]
    assert [call.kind for call in result.trace.calls] == ["encode"] + ["score"] * 5
    assert result.trace.model_calls == 5
    assert len({tuple(sample.tokens) for sample in result.samples}) > 1
    assert result.trace.cache_bytes > 0


@pytest.mark.parametrize("method", ["dexperts", "contrastive_decoding", "momentum"])
def test_steering_goes_with_a_tree(method):
    roles = {"dexperts": ("expert", "anti_expert"), "contrastive_decoding": ("amateur",)}.get(method, ())
    models = {role: loaded("mt5", draft=role != "expert") for role in roles}
    texts = [
        [r.tokens for r in tw.generate(loaded("mt5"), PROMPTS, recipe, models=models, max_new_tokens=8)]
        for recipe in (method, f"{method}+token_recycling")
    ]
    assert texts[0] == texts[1]


@pytest.mark.parametrize("name", ["bart", "umt5"])
def test_the_user_s_model_is_left_as_it_was(name):
    model = build(name)
    ours(loaded(name), "token_recycling")
    assert theirs(model, PROMPTS[2]) == reference(name, "float32")[2]
    for module in model.modules():
        assert "compute_bias" not in vars(module)
        assert not module._forward_hooks and not module._forward_pre_hooks


def test_the_two_limits_have_two_texts():
    target = loaded("bart")
    assert (target.protocol.capabilities.max_length, target.protocol.capabilities.max_prompt) == (CONTEXT, CONTEXT)
    with pytest.raises(ContextError, match=r"prompt 1 has 161 tokens; the encoder of model .* reads 160 at most"):
        tw.generate(target, [[3], [3] * 161])
    full = tw.generate(target, [3] * 160, "token_recycling", max_new_tokens=500)
    assert len(full.tokens) == CONTEXT - 1 and full.finish_reason == "length"
    narrow = copy.copy(target.protocol)
    narrow.capabilities = type(narrow.capabilities)(vocabulary=VOCABULARY, max_length=1, decoder_start=(2,))
    with pytest.raises(ContextError, match=r"decoder of model .* has 1 positions"):
        tw.generate(load(narrow), [3])
    assert loaded("t5").protocol.capabilities.max_prompt is None


def test_bad_input():
    with pytest.raises(InputError, match="prompt 0 is empty"):
        tw.generate(loaded("t5"), [()])
    with pytest.raises(InputError, match="holds token id 97"):
        tw.generate(loaded("t5"), [97])
    with pytest.raises(ModelError, match="no compiled step"):
        load(build("t5"), compile=True)
    with pytest.raises(ModelError, match="decoder_start_token_id"):
        load(t.T5ForConditionalGeneration(t.T5Config(vocab_size=20, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2)))
    with pytest.raises(ModelError, match="forced_eos_token_id"):
        load(with_generation("bart", forced_eos_token_id=[3, 4]))
    with pytest.raises(ModelError, match="no logits"):
        load(t.BartModel(recipe("bart")[1]))
    with pytest.raises(InputError, match="encoder-decoder"):
        build("bart").generate(torch.tensor([PROMPTS[1]]), custom_generate=tw.hf.custom_generate("plain"))


def test_a_decoder_that_counts_its_own_positions_is_refused():
    config = t.M2M100Config(
        vocab_size=40, d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2,
        encoder_ffn_dim=16, decoder_ffn_dim=16, max_position_embeddings=32,
    )  # fmt: skip
    with pytest.raises(ModelError, match="takes no positions"):
        load(t.M2M100ForConditionalGeneration(config))


def test_two_vocabularies_are_refused():
    _, config, _ = recipe("marian")
    config.share_encoder_decoder_embeddings, config.decoder_vocab_size = False, 50
    config.pad_token_id = config.decoder_start_token_id = 49
    with pytest.raises(ModelError, match="one vocabulary"):
        load(t.MarianMTModel(config))


def test_a_folder_is_loaded_by_its_configuration(tmp_path):
    build("bart").save_pretrained(tmp_path)
    words = {str(number): number for number in range(VOCABULARY)}
    t.PreTrainedTokenizerFast(
        tokenizer_object=tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="0"))
    ).save_pretrained(tmp_path)
    target = load(tmp_path)
    assert isinstance(target.protocol, EncoderDecoderModel)
    assert ours(target) == reference("bart", "float32")


def test_a_check_that_allows_everything_leaves_the_formed_law():
    target = with_generation(
        "bart", forced_bos_token_id=11, forced_eos_token_id=5, eos_token_id=5, bad_words_ids=[[11, 12], [40]]
    )
    settings = {"temperature": 1.0, "max_new_tokens": 9, "seed": 4}
    anything = tw.check(lambda tokens: True, reads="tokens")
    plain = tw.generate(load(target), PROMPTS, **settings)
    checked = tw.generate(load(target), PROMPTS, "awrs", constraint=anything, **settings)
    assert [one.tokens[:8] for one in checked] == [one.tokens[:8] for one in plain]
    assert max(abs(one.log_weight) for one in checked) < 1e-12
    # A text that something is asked of ends where that lets it.
    assert all(one.tokens[-1] == 5 for one in plain) and any(one.tokens[-1] != 5 for one in checked)


def test_the_last_token_is_fixed_where_a_steering_model_cuts_the_text():
    """The amateur's decoder has fewer positions than the target's, so texts are as short as it says."""
    target = load(with_generation("bart", forced_eos_token_id=5, eos_token_id=5))
    amateur = copy.copy(loaded("bart", draft=True).protocol)
    amateur.capabilities = replace(amateur.capabilities, max_length=8)
    models = {"amateur": load(amateur)}
    for settings in ({}, {"max_new_tokens": 5}, {"min_new_tokens": 7}):
        results = tw.generate(target, PROMPTS, "contrastive_decoding", models=models, **{"max_new_tokens": 40, **settings})
        ends = {(len(one.tokens), one.tokens[-1] == 5) for one in results}
        assert ends == {(settings.get("max_new_tokens", 7), "min_new_tokens" not in settings)}


def test_medusa_drafts_from_the_decoders_own_states():
    """Its states begin at the decoder's start and not at the prompt, so equal tokens alone would not show that it drafts."""
    options = {"heads": "random", "nodes": 4}
    results = tw.generate(loaded("bart"), [list(range(5, 13)), [7, 8]], "medusa", options, max_new_tokens=8, ignore_eos=True)
    assert all(any(token >= 0 for token in result.trace.steps[1].token[1:]) for result in results)
