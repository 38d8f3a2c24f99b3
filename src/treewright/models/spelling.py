"""What the ids of a tokenizer spell, in bytes, and how bytes are written in its ids."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from treewright.core.errors import ModelError

Write = Callable[[str], Sequence[int]]
BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
BYTES_OF_TOKENS = ("ByteLevel", "Metaspace", "ByteFallback", "Replace", "Fuse")
"""Decoders of tokenizers whose tokens spell the same bytes wherever they stand."""


class Spelling:
    """tokens: the bytes of each id, None for what spells nothing (special tokens, unused ids). special: the names of special
    ids. write: text to ids, None for the longest token first. start: ids that a text begins with. end, unknown: the ids of the
    end of a text and of what cannot be spelled, -1 if there are none."""

    def __init__(
        self, tokens: Sequence[bytes | None], special: dict[int, str] | None = None, write: Write | None = None,
        start: Sequence[int] = (), end: int = -1, unknown: int = -1, fallback: frozenset[int] = frozenset(),
    ) -> None:  # fmt: skip
        self.tokens, self.special, self.start, self.end = list(tokens), special or {}, list(start), end
        self._write, self._unknown = write, unknown
        self.ids: dict[bytes, int] = {}
        # Two ids may spell the same; the one that is no mere byte is what a tokenizer writes.
        for number in sorted(range(len(self.tokens)), key=lambda number: (number in fallback, number)):
            text = self.tokens[number]
            if text:
                self.ids.setdefault(text, number)
        self._longest = max(map(len, self.ids), default=0)

    @classmethod
    def of(cls, tokenizer: Any, name: str, vocabulary: int) -> Spelling:
        """The spelling of a transformers tokenizer (a fast one) of the model `name`, for ids below `vocabulary`.

        Raises ModelError for a tokenizer whose tokens do not spell bytes of their own, such as WordPiece. Cost: one look at
        each token, 0.1 s for 100 000.
        """
        backend: Any = getattr(tokenizer, "backend_tokenizer", None)
        decoder = None if backend is None else json.loads(backend.to_str())["decoder"]
        kinds = set(_kinds(decoder))
        if not kinds & set(BYTES_OF_TOKENS):
            found = "no fast tokenizer" if backend is None else f"a tokenizer with the decoder {'+'.join(kinds) or 'none'}"
            raise ModelError(
                f"model '{name}' has {found}, whose tokens cannot be read as bytes; "
                f"those with a decoder {', '.join(BYTES_OF_TOKENS)} can: give another draft model"
            )
        names = tokenizer.convert_ids_to_tokens(range(min(len(tokenizer), vocabulary)))
        special, added = set(tokenizer.all_special_ids), dict(tokenizer.added_tokens_decoder)
        special |= {number for number, token in added.items() if token.special}
        read = _from_byte_level if "ByteLevel" in kinds else _from_pieces if kinds - {"Fuse"} else str.encode
        tokens: list[bytes | None] = [None] * vocabulary
        for number, text in enumerate(names):
            if text is not None and number not in special:
                tokens[number] = str(text).encode() if number in added else read(text)
        fallback = frozenset(n for n, text in enumerate(names) if text is not None and BYTE.fullmatch(text))
        empty = tokenizer("")["input_ids"]
        start = empty if len(empty) == 1 and empty[0] == tokenizer.bos_token_id else []
        end, unknown = (-1 if one is None else int(one) for one in (tokenizer.eos_token_id, tokenizer.unk_token_id))
        labels = {number: str(names[number]) for number in special if number < len(names)}
        return cls(tokens, labels, lambda text: backend.encode(text, add_special_tokens=False).ids, start, end, unknown, fallback)

    @property
    def keys(self) -> list[bytes | str | None]:
        """What each id is, to tell whether two vocabularies are one."""
        return [self.special.get(number) if text is None else text for number, text in enumerate(self.tokens)]

    def spell(self, ids: Sequence[int]) -> bytes | None:
        """The bytes of some ids, None where one of them spells nothing."""
        texts = [self.tokens[number] if number < len(self.tokens) else None for number in ids]
        return None if any(text is None for text in texts) else b"".join(texts)  # type: ignore[arg-type]

    def encode(self, text: bytes) -> tuple[list[int], bytes]:
        """Ids that spell `text`, and what is left: the beginning of a character that no ids spell yet. Whole text as the
        tokenizer writes it where that spells these very bytes, else the longest token first; what no id spells is the unknown
        one, or left out."""
        end = len(text) - unfinished(text)
        ids = self._written(text[:end])
        if ids is not None:
            rest, left = self._longest_first(text[end:])
            return [*ids, *rest], left
        return self._longest_first(text)

    def _written(self, text: bytes) -> list[int] | None:
        if self._write is None or not text:
            return None if text else []
        try:
            whole = text.decode()
        except UnicodeDecodeError:
            return None
        ids = list(self._write(whole))
        if self.spell(ids) == text:
            return ids
        # A tokenizer that puts a space before a text does not put one behind a line.
        lead, ids = list(self._write("\n")), list(self._write("\n" + whole))
        return ids[len(lead) :] if ids[: len(lead)] == lead and self.spell(ids[len(lead) :]) == text else None

    def _longest_first(self, text: bytes) -> tuple[list[int], bytes]:
        ids, at = list[int](), 0
        while at < len(text):
            sizes = range(min(self._longest, len(text) - at), 0, -1)
            size = next((size for size in sizes if text[at : at + size] in self.ids), 0)
            if size:
                ids.append(self.ids[text[at : at + size]])
                at += size
                continue
            if len(text) - at <= unfinished(text):
                return ids, text[at:]
            if self._unknown >= 0:
                ids.append(self._unknown)
            at += 1
            while at < len(text) and text[at] & 0xC0 == 0x80:
                at += 1
        return ids, b""


def unfinished(text: bytes) -> int:
    """How many bytes at the end of `text` are the beginning of a UTF-8 character that is not whole."""
    for back in range(1, min(3, len(text)) + 1):
        lead = text[-back]
        if lead & 0xC0 != 0x80:
            size = 2 if lead & 0xE0 == 0xC0 else 3 if lead & 0xF0 == 0xE0 else 4 if lead & 0xF8 == 0xF0 else 1
            return back if size > back else 0
    return 0


def _kinds(decoder: Any) -> Iterator[str]:
    if decoder is None:
        return
    if decoder["type"] == "Sequence":
        for part in decoder["decoders"]:
            yield from _kinds(part)
        return
    yield decoder["type"]


def _byte_alphabet() -> dict[str, int]:
    """The characters that byte-level tokenizers write bytes as: printable ones as they are, the others from 256 on."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    return {chr(byte): byte for byte in printable} | {chr(256 + place): byte for place, byte in enumerate(others)}


ALPHABET = _byte_alphabet()


def _from_byte_level(text: str) -> bytes | None:
    known = [ALPHABET.get(character) for character in text]
    return None if any(byte is None for byte in known) else bytes(known)  # type: ignore[arg-type]


def _from_pieces(text: str) -> bytes:
    byte = BYTE.fullmatch(text)
    return bytes([int(byte[1], 16)]) if byte else text.replace("\u2581", " ").encode()
