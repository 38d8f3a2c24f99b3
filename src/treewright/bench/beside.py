"""A prediction in tokens a second, beside the peers that were measured at the place it is for.

`bench predict` promises by what part a method's rounds are fewer and dearer than those of plain decoding. A run at that place
tells the seconds of plain decoding and of the peers, on the same weights and prompts in turns. So the promise in tokens a second
takes from that run the seconds in which plain decoding read the prompts as they are, and divides the others by the promised
ratio; it stands beside the peers' whole time, their reading included. Two ratios are taken: to transformers' plain generation,
and for each other runtime to the mode of it that was fastest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from treewright.bench.contestants import PLAIN, TRANSFORMERS
from treewright.bench.records import Cell, Run, SpeedRecord
from treewright.bench.report import markdown, number
from treewright.bench.speed_report import EVERY
from treewright.core.errors import InputError


@dataclass(frozen=True, slots=True)
class Pace:
    """Tokens a second of one contestant in one cell. predicted: None for plain decoding and peers; measured: None for a method
    that did not run there. over: for every runtime ("transformers", "openvino") its mode that is compared with, and its tokens
    a second."""

    method: str
    cell: Cell
    predicted: float | None
    measured: float | None
    over: dict[str, tuple[str, float]]

    def to_json(self) -> dict[str, Any]:
        domain, texts, heat = self.cell
        return {
            "task": "beside", "method": self.method, "domain": domain, "texts": texts, "temperature": heat,
            "predicted_tokens_per_second": self.predicted, "measured_tokens_per_second": self.measured,
            "compared_with": {runtime: {"mode": mode, "tokens_per_second": pace} for runtime, (mode, pace) in self.over.items()},
        }  # fmt: skip


def paces(promised: Mapping[tuple[str, Cell], float], measured: Sequence[SpeedRecord]) -> list[Pace]:
    """Methods, ours first, and peers, cell by cell; cells without plain decoding are left out.

    promised: ratios to plain decoding by method and cell. measured: records of one model and batch.
    """
    found = []
    for cell in dict.fromkeys(one.cell for one in measured):
        here = [one for one in measured if one.cell == cell]
        speeds = {one.method: one.tokens / one.seconds for one in here}
        plain = next((one for one in here if one.method == PLAIN), None)
        if plain is None:
            continue
        over = _references([one.method for one in here if one.peer], speeds)
        ours = [one.method for one in here if not one.peer]
        for method in dict.fromkeys([*ours, *(method for method, where in promised if where == cell), *speeds]):
            ratio = promised.get((method, cell))
            predicted = None if ratio is None else _promised(plain, ratio)
            found.append(Pace(method, cell, predicted, speeds.get(method), over))
    return found


def _promised(plain: SpeedRecord, ratio: float) -> float:
    """Tokens a second of a method whose rounds take the 1 / ratio-th part of those of plain decoding."""
    return plain.tokens / (plain.reading + (plain.seconds - plain.reading) / ratio)


def check_same_texts(run: Run, measured: Run) -> None:
    """Raises InputError where a run and a run elsewhere are of other prompts or lengths, whose counts do not carry over."""
    for what, here, there in (
        ("prompts of hash", run.prompts, measured.prompts),
        ("--max-new-tokens", run.max_new_tokens, measured.max_new_tokens),
    ):
        if here != there:
            raise InputError(
                f"--run has {what} {here} and --measured {there}, so their texts do not compare; run both with the same "
                "--prompts, --domains, --data and --max-new-tokens"
            )


def _references(peers: Sequence[str], speeds: Mapping[str, float]) -> dict[str, tuple[str, float]]:
    """What each runtime is compared by: transformers' plain generation, the fastest mode of the others."""
    found = {}
    for runtime in dict.fromkeys(name.partition(":")[0] for name in peers):
        modes = [name for name in peers if name.partition(":")[0] == runtime]
        best = TRANSFORMERS if TRANSFORMERS in modes else max(modes, key=lambda name: speeds[name])
        found[runtime] = (best, speeds[best])
    return found


def beside_table(found: Sequence[Pace]) -> str:
    """Predictions beside measurements over all domains, in Markdown: tokens a second, and ratios to each runtime; below, which
    mode of a runtime that was."""
    every = any(one.cell[0] == EVERY for one in found)
    shown = [one for one in found if one.cell[0] == EVERY or not every]
    runtimes = list(dict.fromkeys(runtime for one in shown for runtime in one.over))
    headers = ["method", "domain", "texts", "temperature", "tokens/s, predicted", "tokens/s, measured"]
    for runtime in runtimes:
        headers += [f"x {_side(runtime)}, predicted", f"x {_side(runtime)}, measured"]
    lines = dict.fromkeys(
        f"- {_side(runtime)}, {one.cell[0]}, {one.cell[1]}, temperature {one.cell[2]:g}: {mode}"
        for one in shown for runtime, (mode, _) in one.over.items() if mode != TRANSFORMERS
    )  # fmt: skip
    return "\n".join([markdown(headers, [_row(one, runtimes) for one in shown], words=3), *(["", *lines] if lines else [])])


def _side(runtime: str) -> str:
    """What a column of ratios calls the runtime: transformers' is its plain generation where no line names another mode."""
    return runtime if runtime == TRANSFORMERS else f"{runtime}'s better mode"


def _row(one: Pace, runtimes: Sequence[str]) -> list[str]:
    domain, texts, heat = one.cell
    row: list[Any] = [one.method, domain, texts, f"{heat:g}", number(one.predicted, 1), number(one.measured, 1)]
    for runtime in runtimes:
        pace = one.over.get(runtime, (None, None))[1]
        row += [number(None if value is None or pace is None else value / pace) for value in (one.predicted, one.measured)]
    return row
