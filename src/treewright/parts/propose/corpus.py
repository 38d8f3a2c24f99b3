"""Files of token ids: what methods without a tokenizer read a corpus from, and how to make one."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from treewright.core.errors import InputError

ENDINGS = (".jsonl", ".txt", ".npz")
LARGEST = 2**32 - 2


def write_corpus(path: str | Path, documents: Iterable[Sequence[int]]) -> int:
    """Writes documents of token ids as an .npz file (`tokens` [T] and `ends` [D]: where each document ends), which is what reads
    fastest; returns how many tokens. With a tokenizer of transformers:

        write_corpus("corpus.npz", (tokenizer(text)["input_ids"] for text in texts))
    """
    known = [_checked(list(document), f"document {number}") for number, document in enumerate(documents, start=1)]
    tokens = np.concatenate([*known, np.zeros(0, np.int64)])
    with open(path, "wb") as file:
        np.savez_compressed(file, tokens=tokens.astype(np.uint32), ends=np.cumsum([len(document) for document in known]))
    return len(tokens)


def version_of(path: str | Path) -> int:
    """When a corpus was written, in nanoseconds. Raises InputError where the file is missing or of another kind."""
    path = Path(path)
    if path.suffix not in ENDINGS:
        raise InputError(f"corpus is '{path}'; allowed: a file of token ids ending in {', '.join(ENDINGS)}")
    if not path.is_file():
        raise InputError(f"corpus '{path}' does not exist; write one with treewright.parts.propose.corpus.write_corpus")
    return path.stat().st_mtime_ns


def read_corpus(path: str | Path, vocabulary: int) -> list[np.ndarray]:
    """The documents of a file, each [T] int64: an .npz by `write_corpus`, a .jsonl with a list of ids in each line (or an object
    with one under `tokens` or `input_ids`), or a .txt with a document's ids in each line, spaces between.

    Raises InputError where the file is missing, is of another kind, or holds what is no id of the `vocabulary`.
    """
    version_of(path)
    path = Path(path)
    documents = [text for text in (_read_arrays(path) if path.suffix == ".npz" else _read_lines(path)) if len(text)]
    if not documents:
        raise InputError(f"corpus '{path}' holds no tokens; give a file of at least one document")
    largest = max(int(document.max()) for document in documents)
    if largest >= vocabulary:
        raise InputError(
            f"corpus '{path}' holds the token id {largest} and the target knows {vocabulary} tokens; tokenise it with the "
            "target's tokenizer"
        )
    return documents


def _read_arrays(path: Path) -> list[np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as file:
            tokens, ends = file["tokens"], file["ends"]
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise InputError(f"corpus '{path}' cannot be read ({error}); write it with write_corpus") from error
    rising = ends.ndim == 1 and np.issubdtype(ends.dtype, np.integer) and bool((np.diff(ends, prepend=0) >= 0).all())
    if tokens.ndim != 1 or not rising or (ends[-1] if len(ends) else 0) != len(tokens):
        raise InputError(f"corpus '{path}' has ends that do not cut its {tokens.size} tokens into documents; use write_corpus")
    return np.split(_checked(tokens, f"corpus '{path}'"), ends[:-1])


def _read_lines(path: Path) -> list[np.ndarray]:
    documents = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"corpus '{path}' is no text ({error.reason} at byte {error.start}); give token ids") from error
    for number, line in enumerate(lines, start=1):
        if line.strip():
            where = f"corpus '{path}', line {number}"
            documents.append(_checked(_ids_of(line, path.suffix == ".jsonl", where), where))
    return documents


def _ids_of(line: str, as_json: bool, where: str) -> object:
    try:
        if not as_json:
            return [int(word) for word in line.split()]
        found = json.loads(line)
    except ValueError as error:
        raise InputError(f"{where} is no list of token ids ({error}); tokenise the text first") from error
    if isinstance(found, dict):
        return found.get("tokens", found.get("input_ids"))
    return found


def _checked(tokens: object, where: str) -> np.ndarray:
    if isinstance(tokens, (list, np.ndarray)):
        if len(tokens) == 0:
            return np.zeros(0, np.int64)
        ragged = isinstance(tokens, list) and any(isinstance(token, (list, dict)) for token in tokens)
        ids = np.zeros((0, 0)) if ragged else np.asarray(tokens)
        if ids.ndim == 1 and np.issubdtype(ids.dtype, np.integer) and ids.min() >= 0 and ids.max() <= LARGEST:
            return ids.astype(np.int64)
    raise InputError(f"{where} holds what is no list of token ids; allowed: integers from 0 to {LARGEST}")
