"""Reading the training corpora: named sources, document streams and the hold-out split.

A *source* is one file (or one seeded generator) that yields plain-text documents.  Every
document is either a training document or a held-out one, decided by a hash of its text alone, so
that the split never depends on file order, on the mixture or on the machine.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import synthetic_json, synthetic_sql

HELD_OUT_PER_THOUSAND = 10
PASSAGE_CHARACTERS = 4000

Record = dict[str, Any]


class CorpusError(ValueError):
    """A corpus file is missing or a line of it is not what its reader expects."""


@dataclass(frozen=True)
class Source:
    """One stream of documents.

    Exactly one of `path` (a `.jsonl.gz` file relative to the data folder, read with `render`)
    and `generate` (a seeded generator that needs no data) is set.
    """

    name: str
    domain: str
    path: str = ""
    render: Callable[[Record], Iterator[str]] | None = None
    generate: Callable[[], Iterator[str]] | None = None
    origin: str = ""
    licence: str = ""


def is_held_out(text: str) -> bool:
    """Whether a document belongs to the held-out 1 %; depends on its text only."""
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") % 1000 < HELD_OUT_PER_THOUSAND


def read_documents(source: Source, data: Path) -> Iterator[str]:
    """Yield the documents of `source` in file order, in memory that one document needs.

    Raises:
        CorpusError: the file is missing, a line is not JSON, or a field is missing.
    """
    if source.generate is not None:
        yield from source.generate()
        return
    path = data / source.path
    if not path.is_file():
        raise CorpusError(
            f"corpus file {str(path)!r} of source {source.name!r} does not exist; "
            f"pass the folder that holds {source.path!r} as the data folder"
        )
    assert source.render is not None, source.name
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                yield from source.render(json.loads(line))
            except (json.JSONDecodeError, KeyError) as error:
                raise CorpusError(
                    f"line {number} of {str(path)!r} is no record of source {source.name!r} "
                    f"({error!r}); give the file that the source's reader was written for"
                ) from error


_TYPOGRAPHY = str.maketrans({"\u201c": '"', "\u201d": '"', "\u2018": "'", "\u2019": "'", "\u2014": "--", "\u2026": "..."})


def plain_text(text: str) -> str:
    """Straight quotes and Unix line ends: 4096 tokens are too few to spend on typography."""
    return text.replace("\r\n", "\n").translate(_TYPOGRAPHY).strip()


def _story(record: Record) -> Iterator[str]:
    yield plain_text(record["text"])


def _titled_story(record: Record) -> Iterator[str]:
    yield plain_text(record["title"] + "\n\n" + record["text"])


def _fairy_tale(record: Record) -> Iterator[str]:
    yield plain_text("\n".join(record["sections"]))


def _book(record: Record) -> Iterator[str]:
    """Cut a book at paragraph ends, so that the hold-out split sees passages, not whole books."""
    passage: list[str] = []
    length = 0
    for paragraph in plain_text(record["text"]).split("\n\n"):
        passage.append(paragraph.strip())
        length += len(paragraph)
        if length >= PASSAGE_CHARACTERS:
            yield "\n\n".join(passage)
            passage, length = [], 0
    if passage:
        yield "\n\n".join(passage)


# Code pages, entity tables and topic dumps are megabytes of constants that teach no syntax.
_TABLE_FILES = ("Lib/encodings/", "Lib/pydoc_data/", "Lib/html/entities.py")


def _python(record: Record) -> Iterator[str]:
    if not record["path"].startswith(_TABLE_FILES):
        yield record["text"]


def _grade_school(record: Record) -> Iterator[str]:
    answer = re.sub(r"<<[^>]*>>", "", record["answer"])
    yield f"Question: {plain_text(record['question'])}\nAnswer: {plain_text(answer)}"


def _keywords(record: Record) -> Iterator[str]:
    yield f"Keywords: {', '.join(record['concepts'])}\nSentence: {record['scene']}"


def _meaning(record: Record) -> Iterator[str]:
    yield f"Data: {record['mr']}\nText: {record['ref']}"


def _wikisql(record: Record) -> Iterator[str]:
    sql = synthetic_sql.readable_wikisql(record["sql"])
    yield f"-- {plain_text(record['question'])}\n{sql}\n"


def _text2sql(record: Record) -> Iterator[str]:
    sql = synthetic_sql.readable_text2sql(record["sql"])
    yield f"-- {plain_text(record['question'])}\n{sql}\n"


_STORY_LICENCE = "CC BY 3.0/4.0 or public domain, per story"
_SQL_ORIGIN = "jkkummerfeld/text2sql-data"

SOURCES: dict[str, Source] = {
    source.name: source
    for source in (
        Source("tinystories", "stories", "tinystories_sample/train.jsonl.gz", _story,
               origin="TinyStories sample (Eldan & Li 2023)", licence="CDLA-Sharing-1.0"),
        Source("picture_stories", "stories",
               "simple_stories/open_licensed_picture_stories.jsonl.gz", _titled_story,
               origin="African Storybook and Pratham Books (global-asp)", licence=_STORY_LICENCE),
        Source("fairytales", "stories", "simple_stories/fairytales.jsonl.gz", _fairy_tale,
               origin="public-domain fairy tales as prepared in FairytaleQA",
               licence="Apache-2.0"),
        Source("young_readers", "stories", "gutenberg_books/young_readers.jsonl.gz", _book,
               origin="Project Gutenberg and Standard Ebooks books (classic-books-markdown)",
               licence="public domain"),
        Source("python_library", "python", "python_stdlib/lib.jsonl.gz", _python,
               origin="CPython standard library", licence="PSF-2.0"),
        Source("python_tests", "python", "python_stdlib/lib_tests.jsonl.gz", _python,
               origin="CPython standard library tests", licence="PSF-2.0"),
        Source("wikisql", "sql", "wikisql/train.jsonl.gz", _wikisql,
               origin=f"WikiSQL train ({_SQL_ORIGIN})", licence="BSD-3-Clause"),
        # The other text-to-SQL sets of that repository state no licence, so they stay out.
        Source("advising", "sql", "text2sql/advising.jsonl.gz", _text2sql,
               origin=f"Advising ({_SQL_ORIGIN})", licence="CC BY 4.0"),
        Source("synthetic_sql", "sql", generate=synthetic_sql.documents,
               origin="treewright.train.synthetic_sql", licence="this project's"),
        Source("synthetic_json", "json", generate=synthetic_json.documents,
               origin="treewright.train.synthetic_json", licence="this project's"),
        Source("gsm8k", "other", "gsm8k/train.jsonl.gz", _grade_school,
               origin="GSM8K train (openai/grade-school-math)", licence="MIT"),
        Source("commongen", "other", "commongen/train.jsonl.gz", _keywords,
               origin="CommonGen train (INK-USC)", licence="MIT"),
        Source("e2e", "other", "e2e_clean/devel.jsonl.gz", _meaning,
               origin="E2E NLG cleaned, development part", licence="CC BY-SA 4.0"),
        Source("viggo", "other", "viggo/train.jsonl.gz", _meaning,
               origin="ViGGO train (UCSC NLDS)", licence="CC BY-SA 4.0"),
    )
}  # fmt: skip
