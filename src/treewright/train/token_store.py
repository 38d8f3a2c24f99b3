"""Token streams on disk and the batches drawn from them.

Every source becomes two flat arrays (training and held-out; 16 bits a token, 32 where the vocabulary needs them), documents
joined by the end-of-text token.  A batch is a pure function of (seed, step): resuming needs no sampler state.
"""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from random import Random
from typing import Any

import numpy
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from .corpus import SOURCES, CorpusError, is_held_out, read_documents
from .tokenizer import train_tokenizer

ENCODE_BATCH = 512
CUT_SHARE = 0.3
TOKENIZER_CHARACTERS = 24_000_000

TokenArray = numpy.ndarray[tuple[int], numpy.dtype[numpy.unsignedinteger[Any]]]


@dataclass(frozen=True)
class Window:
    """How a batch is cut: `sequences` windows of `length` predicted tokens each."""

    sequences: int
    length: int

    @property
    def tokens(self) -> int:
        """Predicted tokens in all."""
        return self.sequences * self.length


class TokenStore:
    """The encoded corpora of one run: memory-mapped arrays and the share of each source."""

    def __init__(self, folder: Path, mixture: Mapping[str, float], longest: int) -> None:
        self.mixture = dict(mixture)
        self._training: dict[str, TokenArray] = {}
        self._held_out: dict[str, TokenArray] = {}
        for name in mixture:
            self._training[name] = numpy.load(folder / f"{name}.train.npy", mmap_mode="r")
            self._held_out[name] = numpy.load(folder / f"{name}.held_out.npy", mmap_mode="r")
            size = len(self._training[name])
            if size <= longest + 1:
                raise CorpusError(
                    f"source {name!r} has {size} training tokens, fewer than one window of "
                    f"{longest + 1}; give it more documents or shorten the context"
                )

    @property
    def domains(self) -> tuple[str, ...]:
        """The domains of the mixture, in its order."""
        return tuple(dict.fromkeys(SOURCES[name].domain for name in self.mixture))

    def sizes(self) -> dict[str, int]:
        """Training tokens per source."""
        return {name: len(array) for name, array in self._training.items()}

    def batch(self, seed: int, step: int, window: Window) -> Tensor:
        """Token ids [sequences, length + 1] (int64), the same for the same seed and step."""
        random = numpy.random.Generator(numpy.random.PCG64([seed, step]))
        shares = numpy.array(list(self.mixture.values()))
        names = random.choice(list(self.mixture), size=window.sequences, p=shares / shares.sum())
        rows = []
        for name in names:
            stream = self._training[str(name)]
            start = int(random.integers(0, len(stream) - window.length))
            rows.append(stream[start : start + window.length + 1].astype(numpy.int64))
        return torch.from_numpy(numpy.stack(rows))

    def held_out_rows(self, domain: str, window: Window) -> Tensor | None:
        """Up to `window.sequences` held-out windows [n, length + 1] of one domain, in order.

        Windows are spread evenly over the domain's sources; None when there is no full window.
        """
        sources = [name for name in self.mixture if SOURCES[name].domain == domain]
        stream = numpy.concatenate([self._held_out[name] for name in sources])
        width = window.length + 1
        starts = numpy.arange(0, len(stream) - width + 1, width)
        if not len(starts):
            return None
        chosen = starts[:: max(1, len(starts) // window.sequences)][: window.sequences]
        rows = [stream[start : start + width].astype(numpy.int64) for start in chosen]
        return torch.from_numpy(numpy.stack(rows))


def _tokenizer_documents(data: Path, mixture: Mapping[str, float]) -> Iterator[str]:
    """Training documents of every source, as many characters as its share says."""
    for name, share in mixture.items():
        budget = int(share * TOKENIZER_CHARACTERS)
        for text in read_documents(SOURCES[name], data):
            if is_held_out(text):
                continue
            # A few very long files must not fill a source's whole budget.
            yield text[:20_000]
            budget -= min(len(text), 20_000)
            if budget <= 0:
                break


def prepare_tokenizer(
    folder: Path, data: Path, mixture: Mapping[str, float], vocabulary_size: int, positions: int
) -> PreTrainedTokenizerFast:
    """The tokenizer saved in `folder`, trained there first when it does not exist yet."""
    if not (folder / "tokenizer.json").is_file():
        documents = _tokenizer_documents(data, mixture)
        train_tokenizer(documents, vocabulary_size, positions).save_pretrained(folder)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    assert isinstance(tokenizer, PreTrainedTokenizerFast)
    return tokenizer


def _fingerprint(tokenizer: PreTrainedTokenizerFast) -> str:
    return hashlib.blake2b(tokenizer.backend_tokenizer.to_str().encode()).hexdigest()


def cut_after_lines(text: str) -> list[str]:
    """Cut `text` after about three in ten of its line ends; the same cuts for the same text.

    The vocabulary joins a line end with the indentation after it, so a prompt that ends with a
    line end is spelled as no whole document ever is.  Encoding the pieces on their own shows the
    model both spellings.
    """
    random = Random(text)
    pieces = [""]
    for line in text.splitlines(keepends=True):
        pieces[-1] += line
        if random.random() < CUT_SHARE:
            pieces.append("")
    return [piece for piece in pieces if piece]


def _encode(tokenizer: PreTrainedTokenizerFast, documents: Iterator[str]) -> tuple[TokenArray, TokenArray]:
    """The training and held-out streams of a source; only training documents are cut."""
    streams = (array(code := "H" if len(tokenizer) <= 2**16 else "I"), array(code))
    end = tokenizer.eos_token_id
    while group := list(islice(documents, ENCODE_BATCH)):
        held_out = [is_held_out(text) for text in group]
        pieces = [[text] if is_kept else cut_after_lines(text) for text, is_kept in zip(group, held_out, strict=True)]
        encodings = iter(
            tokenizer.backend_tokenizer.encode_batch_fast(list(chain.from_iterable(pieces)), add_special_tokens=False)
        )
        for is_kept, own in zip(held_out, pieces, strict=True):
            streams[is_kept].append(end)
            for encoding in islice(encodings, len(own)):
                streams[is_kept].extend(encoding.ids)
    training, kept = (numpy.array(stream) for stream in streams)
    return training, kept


def prepare_tokens(folder: Path, data: Path, mixture: Mapping[str, float], tokenizer: PreTrainedTokenizerFast) -> None:
    """Encode every source of `mixture` into `folder` unless the same tokenizer did so before.

    Cost: about 3 MB of text per second and core, and two or four bytes of disk per token.
    """
    folder.mkdir(parents=True, exist_ok=True)
    manifest = folder / "manifest.json"
    wanted = {
        "tokenizer": _fingerprint(tokenizer),
        "sources": sorted(mixture),
        "cut_share": CUT_SHARE,
    }
    if manifest.is_file() and json.loads(manifest.read_text()) == wanted:
        return
    for name in mixture:
        training, held_out = _encode(tokenizer, read_documents(SOURCES[name], data))
        numpy.save(folder / f"{name}.train.npy", training)
        numpy.save(folder / f"{name}.held_out.npy", held_out)
    manifest.write_text(json.dumps(wanted))
