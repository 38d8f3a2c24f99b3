"""A draft model of another tokenizer: the table between the vocabularies, answers against the model's own, and its memory against
a forward over the text written anew."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import transformers

from treewright.core.answers import Answers
from treewright.core.claims import ABSENT, Forest
from treewright.core.errors import ModelError
from treewright.core.session import Opening
from treewright.core.text import Text
from treewright.models.causal import CausalModel
from treewright.models.other_vocabulary import OtherVocabulary
from treewright.models.spelling import Spelling
from treewright.models.tables import Table
from treewright.models.translator import Translator
from treewright.ops.largest import tops

# The target's tokens cut characters; the draft writes bytes, too, or whole characters only.
TARGET = [b"a", b"b", b"ab", b"\xc3", b"\xa9", b"\xf0\x9f", b"\x98", b"\x80", b"a\xc3", None]
BYTES = [None, b"b", b"a", b"\xc3", b"\xa9", b"\xf0", b"\x9f", b"\x98", b"\x80", "é".encode(), b"ba"]
WHOLE = [b"a", b"b", "é".encode(), "😀".encode(), None]
A, B, AB, C3, A9, F09F, X98, X80, AC3, END = range(10)


def translator(own: list[bytes | None], **named: Any) -> Translator:
    return Translator(Spelling(TARGET, {9: "<end>"}, end=9), Spelling(own, {own.index(None): "<end>"}, **named))


def test_shared_tokens_are_those_that_spell_the_same():
    table = translator(BYTES)
    pairs = {TARGET[t]: BYTES[o] for t, o in zip(table.shared_target, table.shared_own, strict=True)}
    assert set(pairs) == {b"a", b"b", b"\xc3", b"\xa9", b"\x98", b"\x80", None}
    assert all(one == other for one, other in pairs.items())
    assert [table.own_of[token] for token in (A, AB, F09F, END)] == [2, -1, -1, 0]
    assert table.twin(0) == END and table.twin(1) == -1


def test_a_token_that_is_there_twice_counts_once():
    table = Translator(Spelling([b"a", b"a", b"b"]), Spelling([b"b", b"a", b"a"], fallback=frozenset({1})))
    assert table.own_of.tolist() == [2, 2, 0]
    assert table.shared_target.tolist() == [2, 0] and table.shared_own.tolist() == [0, 2]
    same = Translator(Spelling([b"a", b"a", b"b"]), Spelling([b"a", b"a", b"b"]))
    assert same.own_of.tolist() == same.shared_target.tolist() == [0, 1, 2], "one vocabulary: the ids are the ids"


def test_ends_of_texts_are_one_token_whatever_their_names():
    ours, theirs = Spelling([b"a", None], {1: "</s>"}, end=1), Spelling([None, b"a"], {0: "<|endoftext|>"}, end=0)
    assert Translator(ours, theirs).own_of.tolist() == [1, 0]


@pytest.mark.parametrize("own", [BYTES, WHOLE])
def test_text_comes_across_whole_wherever_it_is_cut(own):
    """Token by token or a prompt at once, characters cut or not: the own ids and what is held spell the same bytes."""
    table, generator = translator(own), np.random.default_rng(0)
    words = [[A], [B], [AB], [C3, A9], [F09F, X98, X80], [AC3, A9]]
    for _ in range(40):
        tokens = [token for word in generator.integers(0, 6, 5) for token in words[word]]
        for cut in range(len(tokens) + 1):
            for together in (False, True):
                ids, held = table.transcribe(b"", tokens[:cut], together)
                more, rest = table.transcribe(held, tokens[cut:])
                spelled = b"".join(table.spell(token) or b"" for token in ids)
                assert spelled + held == table.text_of(tokens[:cut])
                assert spelled + b"".join(table.spell(token) or b"" for token in more) == table.text_of(tokens)
                assert rest == b"" and (own is WHOLE or held == b"")


def test_what_never_becomes_a_character_is_left_behind():
    table = translator(WHOLE)
    assert table.transcribe(b"", [C3]) == ([], b"\xc3")
    assert table.transcribe(b"\xc3", [A]) == ([0], b""), "a character that is broken off is unknown, and there is no unknown"
    assert table.transcribe(b"\xc3", [END, B]) == ([4, 1], b"")
    assert table.own([AC3]) == [0]


def opened(model: Any, prompts: list[list[int]], claims: int = 12, length: int = 60) -> tuple[Text, Any]:
    text = Text(length)
    session = model.open(text, Opening(claims, len(prompts), length), lambda *call: None)
    text.admit(prompts, [length] * len(prompts))
    session.admit(text, prompts)
    return text, session


def test_answers_are_the_models_own_under_the_targets_ids():
    inner, table = Table(len(BYTES), 4), translator(BYTES)
    text, session = opened(OtherVocabulary(inner, table, "shared"), [[B, AB, A], [A]])
    forest = Forest(text.frontier())
    forest.grow([0, 0, 1, 2], np.array([[A, AB, B, A], [B, A, F09F, C3]]))
    answers = session.score(forest).logits.numpy()
    own = [[1, 2, 1, 2], [2]]
    known = {(0, 0): [], (0, 1): [2], (0, 3): [2, 1], (1, 0): [], (1, 1): [1], (1, 2): [2], (1, 4): [2, 3]}
    for row in range(2):
        for column in range(5):
            expected = np.full(len(TARGET), -np.inf)
            if (row, column) in known:
                expected[table.shared_target] = inner.logits([*own[row], *known[row, column]])[table.shared_own]
            np.testing.assert_array_equal(answers[row, column], expected)


def test_top_ids_leave_out_what_cannot_be_drawn():
    logits = torch.tensor([[[1.0, -torch.inf, 2.0], [-torch.inf] * 3]])
    assert tops(Answers(logits), 3).tolist() == [[[2, 0, ABSENT], [ABSENT] * 3]]


def test_a_row_inside_of_a_character_says_nothing_until_it_is_whole():
    text, session = opened(OtherVocabulary(Table(len(WHOLE), 4), translator(WHOLE), "shared"), [[A, C3], [A, B]])
    assert torch.isinf(session.root().logits).all(-1).tolist() == [[True], [False]]
    for row, token in enumerate((A9, F09F)):
        text.append(row, [token])
    session.commit([[], []])
    assert torch.isinf(session.root().logits).all(-1).tolist() == [[False], [True]]


def tiny(vocabulary: int) -> Any:
    config = transformers.LlamaConfig(
        vocab_size=vocabulary, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=512, initializer_range=0.3,
    )  # fmt: skip
    torch.manual_seed(1)
    return transformers.LlamaForCausalLM(config).double().eval()


@pytest.mark.parametrize(("ids", "adopted"), [("shared", False), ("shared", True), ("own", False)])
def test_memory_is_that_of_a_forward_over_the_text_written_anew(ids, adopted):
    """Claims, accepted and not, numbered as asked and otherwise, corrections outside of the intersection, forks: the root is the
    model's answer to the own text, which spells the row's."""
    network, table = tiny(len(BYTES)), translator(BYTES)
    prompts = [[B, AB, A], [A], [C3, A9, B, B]]
    text, session = opened(OtherVocabulary(CausalModel(network), table, ids), prompts)
    firsts = [table.own(prompt) for prompt in prompts]
    generator = np.random.default_rng(3)
    for number in range(12):
        forest, own = Forest(text.frontier()), Forest(text.frontier())
        for column in (0, 1, 3):
            forest.grow([column, column], generator.integers(0, len(TARGET) - 1, (3, 2)))
            own.grow([column, column], generator.integers(1, len(BYTES), (3, 2)))
            session.score(forest if ids == "shared" else own)
        paths = []
        for row in range(3):
            path = ([1, 3, 5] if ids == "shared" else [])[: int(generator.integers(0, 4))]
            said = [int(forest.token[row, column]) for column in path]
            if ids == "own" and generator.random() < 0.7:  # what the draft wrote becomes text
                said = table.target.encode(b"".join(BYTES[own.token[row, column]] for column in (1, 3, 5)))[0]
            text.append(row, [*said, int(generator.integers(0, len(TARGET) - 1))])
            paths.append([column + 1 for column in path] if adopted else path)
        if adopted:  # the round has the siblings the other way round
            session.adopt(np.array([[0, 2, 1, 4, 3, 6, 5]] * 3))
        session.commit(paths)
        if number % 4 == 3:
            text.select([1, 1, 2])
            session.select([1, 1, 2])
            firsts = [firsts[row] for row in (1, 1, 2)]
        root = session._inner.root().logits
        for row in range(3):
            written = [*firsts[row][:-1], *session._own.of(row).tolist()]
            assert b"".join(BYTES[token] or b"" for token in written) == table.text_of(text.of(row).tolist())
            with torch.no_grad():
                expected = network(torch.tensor([written])).logits[0, -1]
            torch.testing.assert_close(root[row, 0], expected, atol=1e-9, rtol=1e-9)


def test_a_row_without_room_falls_silent():
    inner = Table(len(BYTES), 4)
    text, session = opened(OtherVocabulary(inner, translator(BYTES), "shared"), [[A], [A]])
    session._silent[:] = [True, False]
    forest = Forest(text.frontier())
    forest.grow([0], np.array([[A], [A]]))
    assert torch.isinf(session.score(forest).logits).all(-1).tolist() == [[True, True], [False, False]]
    for row in range(2):
        text.append(row, [A, B])
    session.commit([[1], [1]])
    assert session._own.length.tolist() == [1, 3]


def test_what_it_cannot_be_asked_for():
    model = OtherVocabulary(Table(len(BYTES), 4), translator(BYTES), "shared")
    has = model.capabilities
    assert (has.vocabulary, has.hidden, has.layers, has.exit_layers) == (len(TARGET), False, 0, False)
    _, session = opened(model, [[A]])
    with pytest.raises(ValueError, match="no hidden states"):
        session.states(0)


def test_an_unreadable_model_is_named():
    with pytest.raises(ModelError, match="no fast tokenizer"):
        Spelling.of(None, "m", 3)
