"""`treewright bench TASK`: hands the rest of the line to the benchmark, which reads its own options."""

from __future__ import annotations

from collections.abc import Sequence

from treewright.bench.main import TASKS
from treewright.cli.models import quiet
from treewright.core.errors import InputError

*FIRST, LAST = (f"`{task}`" for task in TASKS)
USAGE = (
    f"usage: treewright bench TASK ..., TASK being {', '.join(FIRST)} or {LAST}; `treewright bench TASK --help` lists its options"
)


def run(arguments: Sequence[str]) -> int:
    if not arguments:
        raise InputError(f"no task given; {USAGE}")
    if arguments[0] in ("--help", "-h"):
        print(USAGE)
        return 0
    quiet()
    from treewright.bench.main import run as bench

    return bench(arguments[0], list(arguments[1:])) or 0
