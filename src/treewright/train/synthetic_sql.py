"""SQL text for training: seeded schemas with rows and queries, and readable forms of public sets.

The public text-to-SQL sets come in a canonical form (`TABLEalias0.CITY_FIELD`, unquoted values)
that no one would type; the rewrites here turn it into ordinary SQL before the model sees it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random

from .synthetic_json import CITIES, COLOURS, COUNTRIES, FIRST_NAMES, LAST_NAMES, PRODUCTS

DOCUMENTS = 24_000
SEED = 30_240

Value = int | float | str


@dataclass(frozen=True)
class Column:
    """A column: its SQL type, how it reads in a question, and how its values are drawn."""

    name: str
    sql_type: str
    draw: Callable[[Random], Value]

    @property
    def is_number(self) -> bool:
        return self.sql_type in ("INTEGER", "REAL")

    @property
    def words(self) -> str:
        return self.name.replace("_", " ")


@dataclass(frozen=True)
class Table:
    """A table of the catalogue; `parent` names the table that `<parent>_id` refers to."""

    name: str
    columns: tuple[Column, ...]
    parent: str = ""


def _pick(name: str, choices: tuple[str, ...]) -> Column:
    return Column(name, "TEXT", lambda random: random.choice(choices))


def _whole(name: str, low: int, high: int) -> Column:
    return Column(name, "INTEGER", lambda random: random.randint(low, high))


def _real(name: str, low: float, high: float) -> Column:
    return Column(name, "REAL", lambda random: round(random.uniform(low, high), 2))


def _day(name: str) -> Column:
    return Column(name, "DATE", lambda random: f"{random.randint(2000, 2026)}-"
                  f"{random.randint(1, 12):02d}-{random.randint(1, 28):02d}")  # fmt: skip


_FULL_NAME = Column("name", "TEXT", lambda random: f"{random.choice(FIRST_NAMES)} "
                    f"{random.choice(LAST_NAMES)}")  # fmt: skip
_DEPARTMENTS = ("Sales", "Engineering", "Marketing", "Finance", "Support", "Legal")
_SUBJECTS = ("Math", "History", "Biology", "Physics", "Art", "Music", "Chemistry")
_GENRES = ("fiction", "fantasy", "history", "science", "poetry", "drama", "comedy")

CATALOGUE: dict[str, Table] = {
    table.name: table
    for table in (
        Table("users", (_FULL_NAME, _whole("age", 10, 90), _pick("city", CITIES),
                        _pick("country", COUNTRIES), _day("created_at"))),
        Table("customers", (_FULL_NAME, _pick("city", CITIES), _pick("country", COUNTRIES),
                            _real("balance", 0, 5000))),
        Table("products", (_pick("name", PRODUCTS), _real("price", 1, 900),
                           _whole("stock", 0, 500), _pick("color", COLOURS))),
        Table("orders", (_whole("quantity", 1, 20), _real("total", 5, 2000),
                         _pick("status", ("pending", "paid", "shipped", "cancelled")),
                         _day("order_date")), parent="customers"),
        Table("departments", (_pick("name", _DEPARTMENTS), _real("budget", 1000, 90000),
                              _pick("city", CITIES))),
        Table("employees", (_FULL_NAME, _whole("salary", 20000, 150000), _day("hire_date"),
                            _whole("age", 18, 67)), parent="departments"),
        Table("students", (_FULL_NAME, _whole("grade", 1, 12), _real("gpa", 1, 4),
                           _whole("age", 6, 25))),
        Table("courses", (_pick("title", _SUBJECTS), _whole("credits", 1, 6),
                          _pick("teacher", LAST_NAMES)), parent="departments"),
        Table("authors", (_FULL_NAME, _pick("country", COUNTRIES),
                          _whole("birth_year", 1800, 2000))),
        Table("books", (_pick("genre", _GENRES), _whole("year", 1850, 2026),
                        _whole("pages", 50, 900), _real("price", 3, 60)), parent="authors"),
        Table("cities", (_pick("name", CITIES), _pick("country", COUNTRIES),
                         _whole("population", 10000, 9000000), _real("area", 10, 3000))),
        Table("flights", (_pick("origin", CITIES), _pick("destination", CITIES),
                          _whole("distance", 100, 12000), _real("price", 30, 1500))),
        Table("teams", (_pick("name", CITIES), _whole("wins", 0, 60), _whole("losses", 0, 60))),
        Table("players", (_FULL_NAME, _whole("goals", 0, 40), _whole("age", 16, 40),
                          _pick("position", ("forward", "defender", "goalkeeper"))),
              parent="teams"),
    )
}  # fmt: skip


def quoted(value: Value) -> str:
    """A value as a SQL literal."""
    return "'" + value.replace("'", "''") + "'" if isinstance(value, str) else str(value)


def _key(table: Table) -> str:
    return f"{table.parent.rstrip('s')}_id" if table.parent else ""


def _definition(table: Table) -> str:
    lines = ["    id INTEGER PRIMARY KEY"]
    lines += [f"    {column.name} {column.sql_type}" for column in table.columns]
    if table.parent:
        lines.append(f"    {_key(table)} INTEGER REFERENCES {table.parent}(id)")
    return f"CREATE TABLE {table.name} (\n" + ",\n".join(lines) + "\n);\n"


def _inserts(random: Random, table: Table) -> str:
    names = ["id", *(column.name for column in table.columns)]
    if table.parent:
        names.append(_key(table))
    rows = []
    for number in range(1, random.randint(2, 4)):
        values: list[Value] = [number, *(column.draw(random) for column in table.columns)]
        if table.parent:
            values.append(random.randint(1, 9))
        rows.append("(" + ", ".join(map(quoted, values)) + ")")
    head = f"INSERT INTO {table.name} ({', '.join(names)}) VALUES"
    if random.random() < 0.5:
        return f"{head}\n    " + ",\n    ".join(rows) + ";\n"
    return "".join(f"{head} {row};\n" for row in rows)


def _condition(random: Random, column: Column, prefix: str = "") -> tuple[str, str]:
    """A comparison as (English, SQL)."""
    value, name = column.draw(random), prefix + column.name
    if column.is_number:
        english, sign = random.choice((("more than", ">"), ("less than", "<"), ("at least", ">="),
                                       ("exactly", "=")))  # fmt: skip
        return f"{column.words} {english} {value}", f"{name} {sign} {value}"
    if column.sql_type == "DATE":
        return f"{column.words} after {value}", f"{name} > {quoted(value)}"
    if random.random() < 0.2:
        start = str(value)[:1]
        return f"{column.words} starting with {start}", f"{name} LIKE {quoted(start + '%')}"
    return f"{column.words} {value}", f"{name} = {quoted(value)}"


def _simple_query(random: Random, table: Table) -> tuple[str, str]:
    shown = random.sample(table.columns, random.randint(1, 2))
    english = f"Show the {' and '.join(column.words for column in shown)} of {table.name}"
    columns = "*" if random.random() < 0.15 else ", ".join(column.name for column in shown)
    sql = f"SELECT {columns} FROM {table.name}"
    if random.random() < 0.75:
        words, test = _condition(random, random.choice(table.columns))
        english, sql = f"{english} with {words}", f"{sql} WHERE {test}"
        if random.random() < 0.35:
            words, test = _condition(random, random.choice(table.columns))
            joint = random.choice(("and", "or"))
            english, sql = f"{english} {joint} {words}", f"{sql} {joint.upper()} {test}"
    if random.random() < 0.4:
        column, down = random.choice(table.columns), random.random() < 0.5
        english += f", sorted by {column.words}{' from high to low' if down else ''}"
        sql += f" ORDER BY {column.name}{' DESC' if down else ''}"
        if random.random() < 0.5:
            limit = random.choice((1, 3, 5, 10))
            english, sql = f"{english}, first {limit}", f"{sql} LIMIT {limit}"
    return english, sql


def _aggregate_query(random: Random, table: Table) -> tuple[str, str]:
    numbers = [column for column in table.columns if column.is_number]
    column = random.choice(numbers)
    english, function = random.choice((("average", "AVG"), ("highest", "MAX"), ("lowest", "MIN"),
                                       ("total", "SUM"), ("count", "COUNT")))  # fmt: skip
    inner = "*" if function == "COUNT" else column.name
    what = f"number of {table.name}" if function == "COUNT" else f"{english} {column.words}"
    groups = [other for other in table.columns if other.sql_type == "TEXT"]
    if groups and random.random() < 0.5:
        group = random.choice(groups)
        sql = (f"SELECT {group.name}, {function}({inner}) FROM {table.name} "
               f"GROUP BY {group.name}")  # fmt: skip
        if random.random() < 0.4:
            sql += f" HAVING COUNT(*) > {random.randint(1, 9)}"
        return f"What is the {what} for each {group.words} of {table.name}?", sql
    words, test = _condition(random, random.choice(table.columns))
    return (f"What is the {what} of {table.name} with {words}?",
            f"SELECT {function}({inner}) FROM {table.name} WHERE {test}")  # fmt: skip


def _join_query(random: Random, table: Table) -> tuple[str, str]:
    parent = CATALOGUE[table.parent]
    mine, theirs = random.choice(table.columns), random.choice(parent.columns)
    words, test = _condition(random, random.choice(parent.columns), f"{parent.name}.")
    return (
        f"Show the {mine.words} of {table.name} and the {theirs.words} of their {parent.name} with {words}",
        f"SELECT {table.name}.{mine.name}, {parent.name}.{theirs.name} FROM {table.name} "
        f"JOIN {parent.name} ON {table.name}.{_key(table)} = {parent.name}.id WHERE {test}",
    )


def _change(random: Random, table: Table) -> tuple[str, str]:
    words, test = _condition(random, random.choice(table.columns))
    if random.random() < 0.5:
        return f"Delete the {table.name} with {words}", f"DELETE FROM {table.name} WHERE {test}"
    column = random.choice(table.columns)
    value = column.draw(random)
    return (f"Set the {column.words} of {table.name} with {words} to {value}",
            f"UPDATE {table.name} SET {column.name} = {quoted(value)} WHERE {test}")  # fmt: skip


def _query(random: Random, table: Table) -> str:
    makers = [_simple_query, _simple_query, _aggregate_query, _change]
    if table.parent:
        makers += [_join_query, _join_query]
    english, sql = random.choice(makers)(random, table)
    if random.random() < 0.3:
        sql = re.sub(r" (FROM|WHERE|JOIN|GROUP BY|ORDER BY|HAVING|LIMIT) ", r"\n\1 ", sql)
    return f"-- {english}\n{sql};\n"


def one_document(random: Random) -> str:
    """One table's script: at times its definition and rows, then one to four queries."""
    table = random.choice(tuple(CATALOGUE.values()))
    parts: list[str] = []
    if random.random() < 0.5:
        parts.append(_definition(table))
        if random.random() < 0.6:
            parts.append(_inserts(random, table))
    parts += [_query(random, table) for _ in range(random.randint(1, 4))]
    return "\n".join(parts)


def documents(count: int = DOCUMENTS, seed: int = SEED) -> Iterator[str]:
    """Yield `count` documents that depend on `seed` only (about 0.05 ms each)."""
    random = Random(seed)
    for _ in range(count):
        yield one_document(random)


def _identifier(text: str) -> str:
    cleaned = re.sub(r"\W+", "_", text.lower()).strip("_")
    return cleaned if cleaned[:1].isalpha() else f"c_{cleaned}"


def _literal(text: str) -> str:
    text = text.strip().strip('"')
    return text if re.fullmatch(r"-?\d+(\.\d+)?", text) else quoted(text)


_WIKISQL = re.compile(r"SELECT (?P<shown>.+?) FROM TABLE AS TABLEalias0(?: WHERE (?P<tests>.*?))? *;$")
_WIKISQL_TEST = re.compile(r"(?:TABLEalias0\.)?(\S.*?)_FIELD (=|>|<) (.*)")
_WIKISQL_SHOWN = re.compile(r"(?:(?P<function>[A-Z]+)\W+)?(?:TABLEalias0\.)?(?P<field>\S+)_FIELD")


def readable_wikisql(sql: str) -> str:
    """`SELECT TABLEalias0.HOME_FIELD FROM TABLE ...` as `SELECT home FROM records ...;`.

    A text that is not in the set's canonical form is returned unchanged.
    """
    match = _WIKISQL.match(sql.replace("\n", " "))
    if match is None:
        return sql
    column = _WIKISQL_SHOWN.match(match["shown"])
    if column is None:
        return sql
    name = _identifier(column["field"])
    shown = f"{column['function']}({name})" if column["function"] else name
    result = f"SELECT {shown} FROM records"
    tests = []
    for test in re.split(r" AND (?=\S+_FIELD )", match["tests"] or ""):
        if parsed := _WIKISQL_TEST.match(test):
            tests.append(f"{_identifier(parsed[1])} {parsed[2]} {_literal(parsed[3])}")
    return result + (" WHERE " + " AND ".join(tests) if tests else "") + ";"


_KEYWORDS = frozenset(
    "SELECT DISTINCT FROM WHERE AND OR NOT IN AS ON JOIN INNER LEFT OUTER GROUP ORDER BY HAVING "
    "LIMIT LIKE BETWEEN IS NULL ASC DESC COUNT SUM AVG MIN MAX EXISTS UNION ALL".split()
)


def readable_text2sql(sql: str) -> str:
    """Canonical text-to-SQL with lower-case names, short aliases and ordinary spacing."""
    aliases = set(re.findall(r"\b[A-Z_0-9]+alias\d+\b", sql))
    if len(aliases) == 1:
        alias = aliases.pop()
        sql = sql.replace(f" AS {alias}", "").replace(f"{alias}.", "")

    def rewrite(part: str) -> str:
        part = re.sub(r"\b[A-Z_0-9]+alias\d+\b|\b[A-Z_0-9]*_[A-Z_0-9]+\b",
                      lambda name: name[0].lower().replace("alias", ""), part)  # fmt: skip
        part = re.sub(r"(?<=\.)[A-Z_0-9]+\b", lambda name: name[0].lower(), part)
        part = re.sub(r"\b[A-Z_0-9]+\b",
                      lambda name: name[0] if name[0] in _KEYWORDS else name[0].lower(),
                      part)  # fmt: skip
        part = re.sub(r"\( ", "(", part)
        return re.sub(r" (?=[,;)])", "", part)

    pieces = re.split(r'("[^"]*")', sql)
    return "".join(quoted(piece.strip('"')) if index % 2 else rewrite(piece) for index, piece in enumerate(pieces))
