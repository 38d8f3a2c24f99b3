"""What comes out: JSON records, one a line, each standing alone, and Markdown tables."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from treewright.bench.statistics import Interval

Write = Callable[[dict[str, Any]], None]


@contextmanager
def record_writer(path: Path | None) -> Iterator[Write]:
    """A function that writes one record a line to `path` (nowhere for None); what was written is whole at any time."""
    if path is None:
        yield lambda record: None
        return
    with path.open("w", encoding="utf-8") as file:

        def write(record: dict[str, Any]) -> None:
            file.write(json.dumps(record, allow_nan=False) + "\n")
            file.flush()

        yield write


def markdown(headers: Sequence[str], rows: Iterable[Sequence[str]], words: int = 1) -> str:
    """A Markdown table whose columns line up; the first `words` columns to the left, the others to the right."""
    body = [list(row) for row in rows]
    widths = [max(len(line[column]) for line in [list(headers), *body]) for column in range(len(headers))]
    rule = ["-" * width if column < words else "-" * (width - 1) + ":" for column, width in enumerate(widths)]
    return "\n".join(_aligned(line, widths, words) for line in [headers, rule, *body])


def _aligned(line: Sequence[str], widths: Sequence[int], words: int) -> str:
    cells = [cell.ljust(width) for cell, width in zip(line[:words], widths[:words], strict=True)]
    cells += [cell.rjust(width) for cell, width in zip(line[words:], widths[words:], strict=True)]
    return "| " + " | ".join(cells) + " |"


def number(value: float | None, digits: int = 2) -> str:
    """A figure, or a dash where there is none."""
    return "-" if value is None else f"{value:.{digits}f}"


def interval(found: Interval | None) -> str:
    """A ratio with its interval."""
    if found is None:
        return "-"
    if found.low is None or found.high is None:
        return f"{found.value:.2f}"
    return f"{found.value:.2f} [{found.low:.2f}, {found.high:.2f}]"
