"""How large a run is, before anything of it exists."""

from __future__ import annotations

from dataclasses import dataclass

from treewright.core.request import Request
from treewright.core.roles import Parts


@dataclass(frozen=True, slots=True)
class Size:
    """slots: rows that each prompt is decoded in. group: rows that enter together. rows: rows at once, of all prompts; one group
    where rows are decoded apart.
    claims: the most columns of a round, beside those that a search keeps alive within it."""

    slots: int
    group: int
    rows: int
    claims: int

    @classmethod
    def of(cls, request: Request, parts: Parts, columns: int | None, any_order: bool) -> Size:
        """The size of a run on a machine where rounds of so many `columns` pay, None for no limit."""
        slots = parts.slots or max(request.samples, parts.candidates)
        group = slots if parts.together else 1
        most = 1 if parts.apart else request.batch_rows
        rows = min(max(1, most // group) * group, slots * len(request.prompts))
        cut = columns is not None and (parts.bonus or any_order)
        return cls(slots, group, rows, min(parts.claims, columns) if cut and columns is not None else parts.claims)
