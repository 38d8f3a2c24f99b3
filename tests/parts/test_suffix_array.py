"""Suffix arrays against a scan, and the files that corpora are read from."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from treewright.core.claims import ABSENT
from treewright.core.errors import InputError
from treewright.parts.propose.corpus import read_corpus, write_corpus
from treewright.parts.propose.suffix_array import SuffixArray

TEXTS = st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=14), min_size=1, max_size=4)


@settings(max_examples=80, deadline=None)
@given(TEXTS, st.lists(st.integers(0, 3), min_size=1, max_size=4), st.integers(0, 5))
def test_places_and_what_follows_are_those_of_a_scan(texts, run, hidden):
    starts = [max(0, len(text) - hidden) for text in texts]
    array = SuffixArray([np.array(text) for text in texts], starts, span=8)
    found = array.find(run)
    scan = [
        (text[at + len(run) : at + len(run) + 4] + [ABSENT] * 4)[:4]
        for text, count in zip(texts, starts, strict=True) for at in range(count) if text[at : at + len(run)] == run
    ]  # fmt: skip
    assert array.following(found, len(run), 4, most=100).tolist() == sorted(scan)
    assert array.tokens == sum(starts)


def test_an_even_selection_of_many_places():
    array = SuffixArray([np.array([1, second] * 1) for second in range(100)], [1] * 100, span=4)
    assert array.following(array.find([1]), 1, 1, most=5).ravel().tolist() == [0, 20, 40, 60, 80]


def test_large_ids_are_told_apart():
    array = SuffixArray([np.array([2**32 - 2, 255, 256, 65535, 2**32 - 2, 1])], [6], span=4)
    assert array.following(array.find([2**32 - 2]), 1, 2, most=9).tolist() == [[1, ABSENT], [255, 256]]
    assert not array.find([65536])


DOCUMENTS = [[1, 2, 3], [5], [0, 70000]]


@pytest.mark.parametrize("ending", ["npz", "jsonl", "txt"])
def test_every_kind_of_file_gives_the_documents(ending, tmp_path):
    path = tmp_path / f"corpus.{ending}"
    if ending == "npz":
        assert write_corpus(path, [DOCUMENTS[0], [], *DOCUMENTS[1:]]) == 6
    elif ending == "jsonl":
        lines = [DOCUMENTS[0], {"tokens": DOCUMENTS[1]}, {"input_ids": DOCUMENTS[2], "text": "a"}, []]
        path.write_text("\n\n".join(map(json.dumps, lines)))
    else:
        path.write_text("1 2 3\n\n5\n0 70000\n")
    assert [document.tolist() for document in read_corpus(path, 100_000)] == DOCUMENTS
    with pytest.raises(InputError, match="holds the token id 70000 and the target knows 500 tokens"):
        read_corpus(path, 500)


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("a.csv", b"1 2", "allowed: a file of token ids ending in .jsonl, .txt, .npz"),
        ("a.txt", b"", "holds no tokens"),
        ("a.txt", b"1 2\nonce upon a time", "line 2 is no list of token ids"),
        ("a.txt", b"1 -2", "line 1 holds what is no list of token ids"),
        ("a.txt", b"\xff\xfe", "is no text"),
        ("a.jsonl", b"[1, 2", "line 1 is no list of token ids"),
        ("a.jsonl", b'{"text": "once"}', "line 1 holds what is no list of token ids"),
        ("a.jsonl", b"[1, 2.5]", "line 1 holds what is no list"),
        ("a.jsonl", b"[[1], [2, 3]]", "line 1 holds what is no list"),
        ("a.jsonl", b"[1, true, null]", "line 1 holds what is no list"),
        ("a.npz", b"not a zip", "cannot be read"),
    ],
)  # fmt: skip
def test_malformed_files_are_refused(name, content, match, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=match):
        read_corpus(tmp_path / name, 100)


def test_arrays_that_do_not_fit_are_refused(tmp_path):
    for ends in ([2], [3, 2, 4], [[4]], [1.5, 4.0]):
        np.savez(tmp_path / "a.npz", tokens=np.arange(4), ends=np.array(ends))
        with pytest.raises(InputError, match="ends that do not cut its 4 tokens"):
            read_corpus(tmp_path / "a.npz", 100)
    with pytest.raises(InputError, match="does not exist"):
        read_corpus(tmp_path / "b.npz", 100)
    with pytest.raises(InputError, match="document 2 holds what is no list"):
        write_corpus(tmp_path / "c.npz", [[1], [-1]])
