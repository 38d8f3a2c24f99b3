"""Which texts are allowed, as plain data: a JSON schema, a regular expression, a Lark grammar, a list of choices, or a
function that is asked.

A grammar speaks of the bytes after the prompt, whatever tokens spell them. It is compiled for a model's vocabulary by
`treewright.parts.constrain.grammar`. A check is a black box: it can be asked about one continuation, and nobody knows
beforehand which of all tokens it would let pass.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from treewright.core.errors import ConstraintError

# The engine of the masks would otherwise allow only one spelling where the next bytes are certain: another law.
NO_FORCING = '%llguidance {"no_forcing": true}\n'


@dataclass(frozen=True, slots=True)
class Grammar:
    """A language. kind: how it was given. source: what was given, as text, for messages. lark: the grammar in llguidance's
    Lark dialect."""

    kind: str
    source: str
    lark: str

    def __str__(self) -> str:
        shown = " ".join(self.source.split())
        return f"{self.kind} {shown if len(shown) <= 60 else shown[:57] + '...'}"


def json_schema(schema: Mapping[str, Any] | str | type, whitespace: bool = False) -> Grammar:
    """JSON that is valid under a schema: a mapping, its JSON text, or a pydantic model class.

    whitespace: allow it between tokens; without, the shortest form is the only one, which a small model needs most.
    Properties come in the order of the schema. Raises ConstraintError for what is not a JSON schema.
    """
    if isinstance(schema, str):
        try:
            schema = json.loads(schema)
        except json.JSONDecodeError as error:
            raise ConstraintError(f"the JSON schema is not JSON: {error}; give the schema's JSON text or a mapping") from error
    if isinstance(schema, type):
        model_schema = getattr(schema, "model_json_schema", None)
        if model_schema is None:
            raise ConstraintError(
                f"JSON schema is the class {schema.__name__}; give a mapping, JSON text or a pydantic model class"
            )
        schema = model_schema()
    if isinstance(schema, bool):
        schema = {} if schema else {"not": {}}
    if not isinstance(schema, Mapping):
        raise ConstraintError(
            f"JSON schema is a {type(schema).__name__}; give a mapping, its JSON text or a pydantic model class"
        )
    spaced = {"whitespace_flexible": whitespace, **dict(schema.get("x-guidance") or {})}
    text = json.dumps({**schema, "x-guidance": spaced}, ensure_ascii=True)
    return Grammar("JSON schema", json.dumps(schema), f"{NO_FORCING}start: %json {text}\n")


def regex(pattern: str) -> Grammar:
    """Text that a regular expression matches as a whole (the syntax of Rust's regex crate: no look-around).
    Raises ConstraintError for an empty pattern."""
    if not pattern:
        raise ConstraintError("regex is ''; give a pattern that matches at least one character")
    if (len(pattern) - len(pattern.rstrip("\\"))) % 2:
        raise ConstraintError(f"regex '{pattern}' ends in a backslash that escapes nothing; double it, or leave it out")
    return Grammar("regex", pattern, f"{NO_FORCING}start: /{_between_slashes(pattern)}/\n")


def _between_slashes(pattern: str) -> str:
    """The pattern as Lark writes it: a bare slash would end it, and so would a line."""
    written = {"/": r"\/", "\n": r"\n", "\\\n": r"\n"}
    return "".join(written.get(piece, piece) for piece in re.findall(r"\\.|.", pattern, re.DOTALL))


def grammar(lark: str) -> Grammar:
    """Text of a context-free grammar in llguidance's dialect of Lark, whose first rule is `start`. Raises ConstraintError
    for an empty grammar."""
    if not lark.strip():
        raise ConstraintError("the grammar is empty; give Lark rules, the first of them `start: ...`")
    return Grammar("grammar", lark, lark if lark.lstrip().startswith("%llguidance") else NO_FORCING + lark)


def choice(options: Sequence[str]) -> Grammar:
    """Exactly one of the given texts. Raises ConstraintError for an empty list or an empty text."""
    if isinstance(options, str) or not options or not all(isinstance(option, str) and option for option in options):
        raise ConstraintError(f"choice is {options!r}; give a list of texts of at least one character each")
    return Grammar(
        "choice", json.dumps(list(options)), NO_FORCING + "start: " + " | ".join(json.dumps(o) for o in options) + "\n"
    )


Reads = Literal["text", "bytes", "tokens"]


@dataclass(frozen=True, slots=True)
class Check:
    """A black box. function: whether a continuation may still become right. complete: whether it may end where it stands,
    None where all that may still become right may. reads: what both are given. within: a grammar that holds as well."""

    function: Callable[[Any], bool]
    complete: Callable[[Any], bool] | None = None
    reads: Reads = "text"
    within: Grammar | None = None

    def __str__(self) -> str:
        return f"check {getattr(self.function, '__name__', None) or type(self.function).__name__}"


def check(
    function: Callable[[Any], bool],
    complete: Callable[[Any], bool] | None = None,
    *,
    reads: Reads = "text",
    within: Grammar | None = None,
) -> Check:
    """A constraint that can only be asked: a program, a parser with semantics, a type checker, a database.

    function: True while the continuation, without the prompt, may still become right. It should never say no to the
    beginning of what it would later say yes to. complete: True where the continuation may end as it stands (None: wherever
    `function` says True). reads: what both are given: "text" is str up to the last whole character, "bytes" is bytes, special
    tokens are in neither and never pass; "tokens" is the tuple of token ids, the end of text left out. within: a grammar that
    must hold too, and is asked first. Answers are kept, so the functions are asked once for each text and must not change
    their minds.

    Such a constraint has no mask: decode with a method that asks about one token at a time, such as awrs.
    Raises ConstraintError for what is no function, or an unknown `reads`.
    """
    for name, given in (("function", function), ("complete", complete)):
        if not callable(given) and not (name == "complete" and given is None):
            raise ConstraintError(f"check {name} is {given!r}; give a function of a continuation that returns True or False")
    if reads not in get_args(Reads):
        raise ConstraintError(f"check reads is {reads!r}; allowed: {', '.join(get_args(Reads))}")
    if within is not None and not isinstance(within, Grammar):
        raise ConstraintError(f"check within is {within!r}; give what json_schema, regex, grammar or choice return")
    return Check(function, complete, reads, within)


Constraint = Grammar | Check
"""What a request may be held to."""
