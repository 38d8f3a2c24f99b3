"""The figures of a speed run: one record for each contestant, domain and kind of text."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from treewright.bench.contestants import PLAIN, TRANSFORMERS, Contestant, Setting
from treewright.bench.depths import Depths
from treewright.bench.equality import Equality, Referee
from treewright.bench.race import Result
from treewright.bench.report import interval, markdown, number
from treewright.bench.statistics import Interval, seconds_per_token, speed_ratio

LOOPING = 0.3
"""A text whose 4-gram repetition reaches this is left out of the rows "repetition < 0.3"."""
EVERY, VARIED = "all", f"repetition < {LOOPING}"


@dataclass(frozen=True, slots=True)
class Field:
    """What was raced under one setting. `referee` is None above temperature 0, where texts of different methods differ."""

    setting: Setting
    contestants: Sequence[Contestant]
    results: dict[str, list[Result]]
    referee: Referee | None


def records(field: Field, context: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A record for every contestant in every cell (domain or all, texts of any or of low repetition) that has a unit."""
    plain = field.results[PLAIN]
    varied = [max(result.repetitions) < LOOPING for result in plain]
    domains = list(dict.fromkeys(result.unit.domain for result in plain))
    judged = _judge(field)
    for domain in [*domains, EVERY] if len(domains) > 1 else domains:
        for texts in (EVERY, VARIED):
            cell = [
                index for index, result in enumerate(plain)
                if domain in (EVERY, result.unit.domain) and (texts == EVERY or varied[index])
            ]  # fmt: skip
            if cell:
                for contestant in field.contestants:
                    cell_record = {"domain": domain, "texts": texts, **_figures(field, contestant, cell, judged)}
                    yield context | cell_record


def all_equal(found: Sequence[dict[str, Any]]) -> bool:
    """Whether no greedy text of a lossless method of ours left plain decoding's without excuse."""
    return not any(record["equal"] is False for record in found if record["lossless"] and not record["peer"])


def _judge(field: Field) -> dict[str, list[Equality]]:
    """For every contestant the tally of each unit."""
    if field.referee is None:
        return {}
    judged = {}
    for contestant in field.contestants:
        judged[contestant.name] = [_tally(field.referee, result, contestant.peer) for result in field.results[contestant.name]]
    return judged


def _tally(referee: Referee, result: Result, peer: bool) -> Equality:
    if result.unit.temperature:
        return Equality()
    judged = [referee.judge(*row, peer) for row in zip(result.unit.numbers, result.outcome.tokens, strict=True)]
    return Equality(len(judged), [row for row in judged if row is not None])


def _figures(field: Field, contestant: Contestant, cell: Sequence[int], judged: dict[str, list[Equality]]) -> dict[str, Any]:
    chosen = [field.results[contestant.name][index] for index in cell]
    rows = field.setting.rows
    tokens = sum(result.outcome.new_tokens for result in chosen)
    calls = _total(result.outcome.model_calls for result in chosen)
    drafts = [result.outcome.draft_calls for result in chosen if result.outcome.draft_calls is not None]
    rounds = _total(result.outcome.row_rounds for result in chosen)
    outside = [result.outcome.outside_seconds for result in chosen if result.outcome.outside_seconds is not None]
    costs = [result.cost for result in chosen]
    repetitions = [value for result in chosen for value in result.repetitions]
    reading = [result.outcome.reading_seconds for result in chosen if result.outcome.reading_seconds is not None]
    tally = [judged[contestant.name][index] for index in cell] if judged else None
    return {
        "method": contestant.name, "recipe": contestant.method, "options": contestant.options, "peer": contestant.peer,
        "lossless": contestant.lossless,
        "temperature": field.setting.temperature, "batch": rows, "units": len(chosen), "row_rounds": rounds,
        "prompts": [list(result.unit.numbers) for result in chosen], "new_tokens": tokens, "model_calls": calls,
        "draft_calls": sum(drafts) if drafts else None,
        "calls_per_token": None if calls is None else calls * rows / max(1, tokens),
        "tokens_per_call": None if rounds is None else tokens / max(1, rounds), "seconds": sum(cost.seconds for cost in costs),
        "ms_per_token": 1000 * seconds_per_token(costs), "reading_seconds": sum(reading) if reading else None,
        "unit_seconds": [cost.seconds for cost in costs],
        "unit_tokens": [cost.tokens for cost in costs],
        "outside_ms_per_round": 1000 * sum(outside) / max(1, calls or 0) if outside else None, **_drafting(field, chosen, cell),
        "ratio_to_transformers": _ratio(field, TRANSFORMERS, contestant.name, cell),
        "ratio_to_plain": _ratio(field, PLAIN, contestant.name, cell),
        "repetition": sum(repetitions) / len(repetitions), **_equality(tally),
    }  # fmt: skip


def _total(counts: Iterable[int | None]) -> int | None:
    """The sum, None where a summand is not known."""
    known = list(counts)
    return None if None in known else sum(count or 0 for count in known)


def _drafting(field: Field, chosen: Sequence[Result], cell: Sequence[int]) -> dict[str, Any]:
    """What a method's drafts were: claims of a row's round, how far they were accepted, columns of the target's forwards, and
    the seconds that drafting took beside one of the target's forwards in plain decoding."""
    depths, sizes, drafting = Depths(), Counter[int](), 0.0
    for result in chosen:
        if result.outcome.depths is None:
            return dict.fromkeys(("claims_per_round", "tried_by_depth", "accepted_by_depth", "calls_by_columns", "draft_share"))
        depths.merge(result.outcome.depths)
        sizes.update(result.outcome.sizes or {})
        drafting += result.outcome.drafting_seconds or 0.0
    plain = [field.results[PLAIN][index] for index in cell]
    one = sum(result.seconds for result in plain) / max(1, _total(result.outcome.model_calls for result in plain) or 0)
    return {
        "claims_per_round": depths.claims / max(1, depths.rounds), "tried_by_depth": depths.tried,
        "accepted_by_depth": depths.accepted, "calls_by_columns": {str(size): sizes[size] for size in sorted(sizes)},
        "draft_share": drafting / max(1, sizes.total()) / one,
    }  # fmt: skip


def _ratio(field: Field, reference: str, name: str, cell: Sequence[int]) -> dict[str, float | None] | None:
    if reference not in field.results:
        return None
    theirs, ours = ([field.results[side][index].cost for index in cell] for side in (reference, name))
    return dataclasses.asdict(speed_ratio(theirs, ours))


def _equality(tally: Sequence[Equality] | None) -> dict[str, Any]:
    if tally is None or not any(unit.rows for unit in tally):
        return {"equal": None, "rows_compared": 0, "rows_identical": 0, "divergences": []}
    parted = [row for unit in tally for row in unit.parted]
    compared = sum(unit.rows for unit in tally)
    return {
        "equal": all(unit.equal for unit in tally), "rows_compared": compared, "rows_identical": compared - len(parted),
        "divergences": [row.to_json() for row in parted],
    }  # fmt: skip


HEADERS = (
    "method", "domain", "equal to plain", "units", "calls/token", "tokens/call", "x transformers", "x plain", "ms/token",
    "outside ms/round", "repetition",
)  # fmt: skip


def report(found: Sequence[dict[str, Any]]) -> str:
    """The records of one setting in Markdown: a table over all texts, one over those of low repetition, and every place
    where a greedy text left plain decoding's."""
    parts = []
    for texts, title in ((EVERY, "All texts"), (VARIED, f"Texts with {VARIED}")):
        rows = [_row(record) for record in found if record["texts"] == texts]
        parts.append(f"### {title}\n\n{markdown(HEADERS, rows, words=3)}" if rows else f"### {title}\n\nNo unit is of this kind.")
    listed = [line for record in found if record["texts"] == EVERY for line in divergences(record)]
    if listed:
        parts.append("### Divergences\n\n" + "\n".join(dict.fromkeys(listed)))
    return "\n\n".join(parts)


def _row(record: dict[str, Any]) -> tuple[str, ...]:
    found = (record["ratio_to_transformers"], record["ratio_to_plain"])
    ratios = [None if ratio is None else Interval(**ratio) for ratio in found]
    return (
        _label(record), record["domain"], equality(record), str(record["units"]), number(record["calls_per_token"], 3),
        number(record["tokens_per_call"]), interval(ratios[0]), interval(ratios[1]), number(record["ms_per_token"]),
        number(record["outside_ms_per_round"]), number(record["repetition"]),
    )  # fmt: skip


def _label(record: dict[str, Any]) -> str:
    """The contestant's name, and the options that its name does not show."""
    hidden = [f"{key}={value}" for key, value in record["options"].items() if f":{key}=" not in record["method"]]
    return f"{record['method']} ({', '.join(hidden)})" if hidden else record["method"]


def equality(record: dict[str, Any]) -> str:
    """Whether the texts were plain decoding's, for a table."""
    if record["equal"] is None:
        return "-"
    excused = sum(divergence["excused"] for divergence in record["divergences"])
    same = f"{record['rows_identical']}/{record['rows_compared']}"
    return f"{'yes' if record['equal'] else 'NO'} ({same}, {excused} excused)" if record["divergences"] else f"yes ({same})"


def divergences(record: dict[str, Any]) -> Iterator[str]:
    """A line for each row that left plain decoding's text."""
    for row in record["divergences"]:
        verdict = "excused" if row["excused"] else "BROKEN"
        yield f"- {verdict}: {_label(record)}, prompt {row['prompt']}, {row['sentence']}"
