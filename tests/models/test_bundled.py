"""The bundled models do what their cards say."""

from __future__ import annotations

import treewright as tw


def test_the_encoder_decoder_does_what_it_was_trained_for():
    answers = tw.generate("default-seq2seq", ["reverse: cat dog sun", "marked: cat * dog * sun"], "prompt_lookup")
    assert [answer.text for answer in answers] == [" sun dog cat", " dog sun"]
    assert {answer.finish_reason for answer in answers} == {"stop"}
