"""Cards: what a method says of itself, read from its source text, so that listing methods imports nothing heavy."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from treewright.core.errors import InputError

FIELDS = ("title", "year", "link", "card", "aliases", "roles", "models", "needs", "claims")
OPTIONAL = ("scorers", "tables", "arms", "translated", "limit")
AT_LIMIT = "lossless_at_limit"
"""The claim of a lossy method that its `limit` makes exact."""


@dataclass(frozen=True, slots=True)
class Option:
    """One field of a method's Config: its annotation and default as written, and its line in the Config docstring."""

    name: str
    type: str
    default: Any
    help: str


@dataclass(frozen=True, slots=True)
class ScorerRole:
    """The role of something that judges texts ("reward" ...), and the values of options under which the method asks for it:
    none where it always does. Written `["reward"]` or `{"reward": {"by": "reward"}}` in a CARD."""

    role: str
    when: tuple[tuple[str, Any], ...] = ()

    def __str__(self) -> str:
        conditions = " and ".join(f"{option} is '{value}'" for option, value in self.when)
        return f"{self.role} (where {conditions})" if conditions else self.role


@dataclass(frozen=True, slots=True)
class Card:
    """What a method says of itself.

    card: its number in the list of papers, or None. roles: the seats of the round it takes. models: the roles of models
    it needs beside the target ("draft" ...); models_need: capabilities that those must have, where there are any (written as
    {"draft": ["layers"]}). scorers: what judges its texts, and when. needs: capabilities the target must
    have. claims: names of laws in `treewright.testing` that hold for it. tables: options under which those laws run on exact
    tables, for a method whose own ones need a certain model or have more outcomes than can be enumerated. arms: the option
    that names other recipes among which it chooses; what they need, it needs. translated: roles whose model may have another
    tokenizer than the target, and whose ids it is asked in then, "shared" (the target's) or "own". limit: options with which a
    lossy method is exact, which is what the claim `lossless_at_limit` is about.
    """

    name: str
    family: str
    title: str
    year: int
    link: str
    card: int | None
    aliases: tuple[str, ...]
    roles: tuple[str, ...]
    models: tuple[str, ...]
    models_need: tuple[tuple[str, tuple[str, ...]], ...]
    scorers: tuple[ScorerRole, ...]
    needs: tuple[str, ...]
    claims: tuple[str, ...]
    options: tuple[Option, ...]
    summary: str
    tables: tuple[tuple[str, Any], ...] = ()
    arms: str = ""
    translated: tuple[tuple[str, str], ...] = ()
    limit: tuple[tuple[str, Any], ...] = ()

    @property
    def lossless(self) -> bool:
        return "lossless" in self.claims

    @property
    def claims_told(self) -> str:
        """The claims as people read them, that of a limit with its options."""
        where = ", ".join(f"{name} = {value}" for name, value in self.limit)
        return ", ".join(f"{claim} ({where})" if claim == AT_LIMIT else claim for claim in self.claims)

    @property
    def needs_drafter(self) -> bool:
        """Whether it controls drafting and drafts nothing itself."""
        return "control" in self.roles and "propose" not in self.roles

    def scorers_under(self, options: Mapping[str, Any]) -> list[str]:
        """The roles that must be filled by what judges texts when the method runs with these options."""
        chosen = {option.name: option.default for option in self.options} | dict(options)
        return [scorer.role for scorer in self.scorers if all(chosen[name] == value for name, value in scorer.when)]


def read_card(path: Path, family: str) -> Card:
    """The card of a method file: its literal CARD, its Config's fields and the first paragraph of its docstring."""
    tree = parse_head(path.read_text(encoding="utf-8"), str(path))
    literal: dict[str, Any] | None = None
    options: tuple[Option, ...] = ()
    for node in tree.body:
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "CARD" for t in node.targets):
            literal = ast.literal_eval(node.value)
        if isinstance(node, ast.ClassDef) and node.name == "Config":
            options = _read_options(node)
    if literal is None or set(literal) - set(OPTIONAL) != set(FIELDS):
        found = "no CARD" if literal is None else f"fields {', '.join(sorted(literal))}"
        raise InputError(
            f"method file {path} has {found}; its literal CARD must have {', '.join(FIELDS)}, and may have {', '.join(OPTIONAL)}"
        )
    _check_limit(path, literal, options)
    summary = (ast.get_docstring(tree) or "").split("\n\n")[0].replace("\n", " ")
    lists = ("aliases", "roles", "models", "needs", "claims")
    sequences = {name: tuple(literal.get(name, ())) for name in lists}
    return Card(
        name=path.stem,
        family=family,
        title=literal["title"],
        year=literal["year"],
        link=literal["link"],
        card=literal["card"],
        options=options,
        models_need=_read_models_need(literal["models"]),
        scorers=_read_scorers(literal.get("scorers", ())),
        summary=summary,
        tables=tuple(literal.get("tables", {}).items()),
        arms=literal.get("arms", ""),
        translated=tuple(literal.get("translated", {}).items()),
        limit=tuple(literal.get("limit", {}).items()),
        **sequences,
    )


def _check_limit(path: Path, literal: dict[str, Any], options: tuple[Option, ...]) -> None:
    limit, names = literal.get("limit", {}), [option.name for option in options]
    if bool(limit) != (AT_LIMIT in literal["claims"]):
        raise InputError(
            f"method file {path} has the limit {limit} and claims {', '.join(literal['claims'])}; "
            f"a limit of at least one option and the claim '{AT_LIMIT}' go together"
        )
    unknown = sorted(set(limit) - set(names))
    if unknown:
        raise InputError(f"method file {path} has a limit of option '{unknown[0]}'; its Config has {', '.join(names)}")


def parse_head(text: str, name: str) -> ast.Module:
    """The statements of a method file as far as a card needs them: up to the end of its Config, where CARD stands before that,
    else all of them. What follows is most of a file, and parsing is what listing methods costs."""
    config = re.search(r"^class Config\b.*\n", text, re.MULTILINE)
    behind = config and re.compile(r"^[^\s#]", re.MULTILINE).search(text, config.end())
    if config and behind and re.search(r"^CARD\b", text[: config.start()], re.MULTILINE):
        try:
            return ast.parse(text[: behind.start()], filename=name)
        except SyntaxError:
            pass  # The cut went through a string or a bracket.
    return ast.parse(text, filename=name)


def _read_models_need(written: Any) -> tuple[tuple[str, tuple[str, ...]], ...]:
    return tuple((role, tuple(needs)) for role, needs in written.items()) if isinstance(written, dict) else ()


def _read_scorers(written: Any) -> tuple[ScorerRole, ...]:
    conditions = written if isinstance(written, dict) else {role: {} for role in written}
    return tuple(ScorerRole(role, tuple(when.items())) for role, when in conditions.items())


def _read_options(node: ast.ClassDef) -> tuple[Option, ...]:
    help_lines = {}
    for line in (ast.get_docstring(node) or "").splitlines():
        name, colon, text = line.strip().partition(": ")
        if colon and name.isidentifier():
            help_lines[name] = text
    return tuple(
        Option(field.target.id, ast.unparse(field.annotation), ast.literal_eval(field.value), help_lines.get(field.target.id, ""))
        for field in node.body
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and field.value is not None
    )
