"""Readers, the hold-out split, the generators and the token store."""

from __future__ import annotations

import gzip
import json
import sqlite3
from pathlib import Path
from random import Random

import pytest
import torch

from treewright.train import synthetic_json, synthetic_sql
from treewright.train.corpus import SOURCES, CorpusError, is_held_out, read_documents
from treewright.train.language_model import Optimization
from treewright.train.recipes import MIXTURE, Recipe
from treewright.train.token_store import (
    TokenStore,
    Window,
    cut_after_lines,
    prepare_tokenizer,
    prepare_tokens,
)


def _write(data: Path, name: str, *records: object) -> None:
    path = data / SOURCES[name].path
    path.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(record) + "\n" for record in records)


def test_readers_render_their_records(tmp_path: Path):
    _write(tmp_path, "tinystories", {"text": "\u201cHi,\u201d he said.\r\nIt\u2019s late. "})
    _write(tmp_path, "gsm8k", {"question": "1+1?", "answer": "It is <<1+1=2>>2.\n#### 2"})
    _write(tmp_path, "python_library", {"path": "Lib/encodings/x.py", "text": "t"},
           {"path": "Lib/a.py", "text": "pass\n"})  # fmt: skip
    _write(tmp_path, "commongen", {"concepts": ["dog", "run"], "scene": "A dog runs."})

    def read(name: str) -> list[str]:
        return list(read_documents(SOURCES[name], tmp_path))

    assert read("tinystories") == ['"Hi," he said.\nIt\'s late.']
    assert read("gsm8k") == ["Question: 1+1?\nAnswer: It is 2.\n#### 2"]
    assert read("python_library") == ["pass\n"]
    assert read("commongen") == ["Keywords: dog, run\nSentence: A dog runs."]


def test_books_are_cut_at_paragraphs_and_nothing_is_lost(tmp_path: Path):
    text = "\n\n".join(f"Paragraph {number} " + "word " * 100 for number in range(30))
    _write(tmp_path, "young_readers", {"text": text})
    passages = list(read_documents(SOURCES["young_readers"], tmp_path))
    assert len(passages) > 2
    assert "\n\n".join(passages).split() == text.split()


def test_corpus_errors_name_the_file_and_the_line(tmp_path: Path):
    with pytest.raises(CorpusError, match=r"gsm8k/train.jsonl.gz' of source 'gsm8k' does not exist"):
        next(read_documents(SOURCES["gsm8k"], tmp_path))
    _write(tmp_path, "gsm8k", {"question": "q", "answer": "a"}, {"question": "q"})
    with pytest.raises(CorpusError, match=r"line 2 of .*'answer'"):
        list(read_documents(SOURCES["gsm8k"], tmp_path))


def test_every_source_of_the_mixture_exists():
    assert set(MIXTURE) <= set(SOURCES)
    assert all(source.licence for name, source in SOURCES.items() if name in MIXTURE)


def test_about_one_document_in_a_hundred_is_held_out():
    held_out = sum(is_held_out(f"document {number}") for number in range(20_000))
    assert 150 < held_out < 250


def test_json_documents_parse_and_depend_on_the_seed_only():
    documents = list(synthetic_json.documents(300, seed=5))
    assert documents == list(synthetic_json.documents(300, seed=5))
    assert documents != list(synthetic_json.documents(300, seed=6))
    for text in documents:
        _, separator, body = text.partition(" as JSON:\n")
        json.loads(body if separator else text)
    assert any("\n    " in text for text in documents)
    assert any('":' in text and '": ' not in text for text in documents)


def test_synthetic_sql_runs():
    random = Random(3)
    database = sqlite3.connect(":memory:")
    for table in synthetic_sql.CATALOGUE.values():
        database.execute(synthetic_sql._definition(table))
    for _ in range(300):
        script = synthetic_sql.one_document(random)
        queries = script.partition("-- ")[2]
        database.executescript(f"-- {queries}")


@pytest.mark.parametrize(
    ("canonical", "readable"),
    [
        (
            "SELECT TABLEalias0.SCHOOL/CLUB_TEAM_FIELD FROM TABLE AS TABLEalias0 WHERE NO._FIELD = 21 ;",
            "SELECT school_club_team FROM records WHERE no = 21;",
        ),
        (
            "SELECT COUNT TABLEalias0.GAME_FIELD FROM TABLE AS TABLEalias0 WHERE "
            "TABLEalias0.DATE_FIELD = o'neil day AND TABLEalias0.POINTS_FIELD < 15 ;",
            "SELECT COUNT(game) FROM records WHERE date = 'o''neil day' AND points < 15;",
        ),
        ("SELECT 1;", "SELECT 1;"),
    ],
)
def test_wikisql_becomes_readable(canonical: str, readable: str):
    assert synthetic_sql.readable_wikisql(canonical) == readable


def test_text2sql_becomes_readable():
    canonical = 'SELECT COURSEalias0.NAME FROM COURSE AS COURSEalias0 WHERE COURSEalias0.AREA = "AI" ;'
    assert synthetic_sql.readable_text2sql(canonical) == ("SELECT name FROM course WHERE area = 'AI';")


@pytest.fixture
def store(recipe: Recipe, tmp_path: Path) -> TokenStore:
    tokenizer = prepare_tokenizer(tmp_path / "tokenizer", tmp_path, recipe.mixture, 320, 64)
    prepare_tokens(tmp_path / "tokens", tmp_path, recipe.mixture, tokenizer)
    return TokenStore(tmp_path / "tokens", recipe.mixture, 64)


def test_batches_depend_on_seed_and_step_only(store: TokenStore):
    window = Window(3, 20)
    batch = store.batch(7, 100, window)
    assert batch.shape == (3, 21) and batch.dtype == torch.int64
    assert torch.equal(batch, store.batch(7, 100, window))
    assert not torch.equal(batch, store.batch(7, 101, window))
    assert not torch.equal(batch, store.batch(8, 100, window))


def test_held_out_rows_are_of_one_domain(store: TokenStore):
    assert store.domains == ("json", "sql")
    rows = store.held_out_rows("json", Window(2, 16))
    assert rows is not None and rows.shape == (2, 17)
    assert store.held_out_rows("json", Window(2, 10**6)) is None


def test_a_source_shorter_than_a_window_is_an_error(store: TokenStore, tmp_path: Path):
    with pytest.raises(CorpusError, match="fewer than one window"):
        TokenStore(tmp_path / "tokens", store.mixture, 10**7)


def test_tokens_are_encoded_once(recipe: Recipe, store: TokenStore, tmp_path: Path):
    before = (tmp_path / "tokens" / "few_sql.train.npy").stat().st_mtime_ns
    tokenizer = prepare_tokenizer(tmp_path / "tokenizer", tmp_path, recipe.mixture, 320, 64)
    prepare_tokens(tmp_path / "tokens", tmp_path, recipe.mixture, tokenizer)
    assert (tmp_path / "tokens" / "few_sql.train.npy").stat().st_mtime_ns == before


def test_training_documents_are_cut_after_line_ends_only(store: TokenStore):
    text = "".join(f"line {number}\n    more\n" for number in range(200))
    pieces = cut_after_lines(text)
    assert "".join(pieces) == text and pieces == cut_after_lines(text)
    assert all(piece.endswith("\n") for piece in pieces)
    assert 80 < len(pieces) < 160


def test_windows_of_unequal_size_are_an_error():
    with pytest.raises(ValueError, match="same number of tokens"):
        Optimization(1e-3, window=Window(2, 8), long_window=Window(2, 9))
