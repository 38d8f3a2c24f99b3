"""What tokenizers spell: byte-level, pieces with a space mark, plain strings; characters of several bytes, refusals."""

from __future__ import annotations

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from treewright.core.errors import ModelError
from treewright.models.loading import BUNDLED, tokenizer_of
from treewright.models.spelling import ALPHABET, Spelling, unfinished

TEXTS = ["def énumérer(x): 😀\n", "  two spaces", "naïve 日本語", "SELECT * FROM t;", "", " ", "<|endoftext|>"]


def pieces(words: list[str], byte_fallback: bool = True) -> PreTrainedTokenizerFast:
    """A sentencepiece-like BPE of whole pieces: a mark in place of the space, one before the text, bytes for the rest."""
    names = ["<unk>", "<s>", "</s>", *([f"<0x{byte:02X}>" for byte in range(256)] if byte_fallback else []), "\u2581", *words]
    vocabulary = {name: number for number, name in enumerate(dict.fromkeys(names))}
    merges = [(word[:-1], word[-1]) for word in words if len(word) > 1 and word[:-1] in vocabulary and word[-1] in vocabulary]
    backend = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=byte_fallback, fuse_unk=False))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    backend.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()])
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", bos_token="<s>", eos_token="</s>")


WORDS = ["a", "b", "n", "\u2581a", "\u2581ab", "ab", "e"]


@pytest.fixture(scope="module")
def bundled() -> Spelling:
    tokenizer = tokenizer_of(BUNDLED / "default")
    return Spelling.of(tokenizer, "default", len(tokenizer) + 3)


def test_the_byte_alphabet_is_that_of_transformers():
    assert sorted(ALPHABET.values()) == list(range(256))
    assert set(ALPHABET) == set(pre_tokenizers.ByteLevel.alphabet())


def test_byte_level_tokens_spell_what_they_decode_to(bundled):
    tokenizer = tokenizer_of(BUNDLED / "default")
    for text in TEXTS[:-1]:
        ids = tokenizer(text)["input_ids"]
        assert bundled.spell(ids) == text.encode() == tokenizer.decode(ids).encode()
        assert bundled.encode(text.encode()) == (ids, b"")
    assert [bundled.tokens[number] for number in (0, 1)] == [None, None]
    assert bundled.special == {0: "<|endoftext|>", 1: "<|pad|>"}
    assert bundled.end == 0
    assert bundled.tokens[-3:] == [None] * 3, "ids that the tokenizer does not have spell nothing"


@pytest.mark.parametrize("text", TEXTS)
def test_every_cut_of_a_text_is_spelled(text, bundled):
    """Also in the middle of a character, and where the text looks like a special token."""
    whole = text.encode()
    for cut in range(len(whole) + 1):
        ids, left = bundled.encode(whole[:cut])
        assert (bundled.spell(ids), left) == (whole[:cut], b"")


def test_pieces_spell_their_spaces_and_bytes():
    spelling = Spelling.of(pieces(WORDS), "pieces", 400)
    for text in (b" ab a", b"ab", b"a ab", b"b\nab", "né 😀 ab".encode()):
        ids, left = spelling.encode(text)
        assert (spelling.spell(ids), left) == (text, b""), "no space is put before a text"
    assert spelling.spell(spelling.encode(b" ab a")[0][:1]) == b" ab"
    assert spelling.ids[b"a"] > spelling.ids[b"\x00"], "the letter, not the byte that spells the same"


def test_without_bytes_an_unfinished_character_waits_and_a_strange_one_is_unknown():
    spelling = Spelling([b"a", "é".encode(), None], unknown=2)
    assert spelling.encode(b"a\xc3") == ([0], b"\xc3")
    assert spelling.encode("aéa".encode()) == ([0, 1, 0], b"")
    assert spelling.encode("a😀a".encode()) == ([0, 2, 0], b"")
    assert spelling.encode(b"\xc3a") == ([2, 0], b"")
    assert Spelling([b"a"]).encode(b"aba") == ([0, 0], b"")


@pytest.mark.parametrize("text", ["a", "é", "日", "😀", "aé日😀"])
def test_unfinished_counts_the_bytes_of_a_cut_character(text):
    whole = text.encode()
    for cut in range(len(whole) + 1):
        good = len(whole[:cut].decode(errors="ignore").encode())
        assert unfinished(whole[:cut]) == cut - good
    assert unfinished(b"\x80\x80\x80\x80") == 0


def test_tokenizers_without_bytes_of_their_own_are_refused():
    backend = Tokenizer(models.WordPiece({"[UNK]": 0, "a": 1, "##b": 2}, unk_token="[UNK]"))
    backend.decoder = decoders.WordPiece()
    with pytest.raises(ModelError, match="model 'bert' has a tokenizer with the decoder WordPiece, whose tokens cannot be read"):
        Spelling.of(PreTrainedTokenizerFast(tokenizer_object=backend), "bert", 3)
    with pytest.raises(ModelError, match="no fast tokenizer"):
        Spelling.of(object(), "slow", 3)
