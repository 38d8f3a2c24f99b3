"""Encoder-decoders with a tokenizer: what comes out is the decoder's own text, constrained and weighed behind what it fixes."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
import transformers as t

import treewright as tw
from treewright.models.loading import load


@cache
def with_tokenizer() -> Any:
    """A random model of the bundled tokenizer's vocabulary, whose texts begin with a token that spells nothing."""
    config = t.PegasusConfig(
        vocab_size=4096, d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2,
        encoder_ffn_dim=16, decoder_ffn_dim=16, max_position_embeddings=64, init_std=0.4, pad_token_id=1, eos_token_id=0,
        decoder_start_token_id=0, forced_eos_token_id=0,
    )  # fmt: skip
    torch.manual_seed(0)
    model = t.PegasusForConditionalGeneration(config)
    model.generation_config.forced_bos_token_id = 1
    return load(model, "default")


def test_text_is_the_decoder_s_alone():
    target = with_tokenizer()
    result = tw.generate(target, "Once upon a time", max_new_tokens=8)
    assert result.tokens[0] == 1
    assert result.text == target.tokenizer.decode(result.tokens, skip_special_tokens=True)
    assert "".join(tw.stream(target, "Once upon a time", max_new_tokens=8)) == result.text


@pytest.mark.parametrize("method", ["plain", "token_recycling"])
def test_a_constraint_holds_behind_the_fixed_first_token(method):
    choice = tw.choice(["the red ball", "a blue boat"])
    result = tw.generate(with_tokenizer(), "Which one?", method, constraint=choice, max_new_tokens=16)
    assert result.tokens[0] == 1 and result.finish_reason == "stop"
    assert result.text in ("the red ball", "a blue boat")


@pytest.mark.parametrize(
    ("method", "constraint"),
    [("awrs", tw.check(lambda text: True)), ("smc", tw.regex("[a-z ]+")), ("awrs+smc", tw.regex("[a-z ]+"))],
)
def test_what_the_model_fixes_is_no_weight_of_what_is_asked(method, constraint):
    """The first token is the model's own affair; were it a constraint, its weight would be the token's probability."""
    settings = {"temperature": 1.0, "max_new_tokens": 1, "n": 2, "constraint": constraint}
    result = tw.generate(with_tokenizer(), "Which one?", method, **settings)
    assert [(sample.tokens, sample.log_weight) for sample in result.samples] == [([1], 0.0)] * 2
    assert result.log_evidence == 0.0


def test_the_bundled_one_does_what_it_was_trained_for():
    answers = tw.generate("default-seq2seq", ["reverse: cat dog sun", "marked: cat * dog * sun"], "prompt_lookup")
    assert [answer.text for answer in answers] == [" sun dog cat", " dog sun"]
    assert {answer.finish_reason for answer in answers} == {"stop"}
