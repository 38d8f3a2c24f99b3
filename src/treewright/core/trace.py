"""What happened: every model call and every round. Pictures, benchmarks and tests read this; methods keep no counters."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Call:
    """One forward of one model. `kind`: as a `Recorder` hears it. `columns` is what the forward computed, padding included;
    seconds are wall time; share: the part of the layers that ran."""

    model: str
    kind: str
    rows: int
    columns: int
    seconds: float
    share: float = 1.0


@dataclass(slots=True)
class Step:
    """One round of one request: the claims that were asked and what became of them.

    token and parent [N] describe the tree (column 0 is the frontier); accepted holds columns, emitted the tokens that became
    text (bonus included, after truncation); calls is how often the target was asked in the round. checks: tokens that a
    constraint was asked about, one at a time. model: whose answers decided, another's than the target's where a method lets
    others write, which the row does not count as calls; None where no answer was needed.
    """

    sample: int
    token: list[int]
    parent: list[int]
    accepted: list[int]
    emitted: list[int]
    calls: int = 1
    checks: int = 0
    model: str | None = "target"


@dataclass(slots=True)
class Trace:
    """The account of one prompt. Model calls and seconds are those of the batch, from the entry of the prompt's first row to the
    end of its last, be they samples, candidates or beams. steps, new_tokens and tokens_per_call are those of the first sample,
    which is the chosen one where a method chooses. There notes["selection"] says how many `candidates` there were, the sample
    numbers of the ranked ones as their `order`, how many rows were `given_up`, and the `tokens` of all rows; of a search, how
    many `hypotheses` it ended with and their `order`, numbered as they ended; "missing", where it is there, how
    many of the n texts that were asked for were not found."""

    recipe: dict[str, Any] = field(default_factory=dict)
    calls: list[Call] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    notes: dict[str, Any] = field(default_factory=dict)
    new_tokens: int = 0
    seconds: float = 0.0
    cache_bytes: int = 0

    @property
    def model_calls(self) -> int:
        """Forwards of the target model after the prompt was read."""
        return sum(call.model == "target" and call.kind == "score" for call in self.calls)

    @property
    def tokens_per_call(self) -> float:
        """Tokens the row gained per target forward it took part in (the field's mean accepted tokens, bonus included).
        `Result.tokens_per_call` counts all samples."""
        return self.new_tokens / max(1, sum(step.calls for step in self.steps))

    @property
    def chosen_among(self) -> str | None:
        """Among what the text was chosen, such as "8 candidates" or "1 hypothesis"; None where nothing chose."""
        selection = self.notes.get("selection")
        if selection is None:
            return None
        if "hypotheses" in selection:
            return f"{selection['hypotheses']} {'hypothesis' if selection['hypotheses'] == 1 else 'hypotheses'}"
        return f"{selection['candidates']} candidate{'' if selection['candidates'] == 1 else 's'}"

    @property
    def checks_per_token(self) -> float:
        """Tokens that a constraint was asked about, for each token gained (a mask asks about none: it answers for all)."""
        return sum(step.checks for step in self.steps) / max(1, self.new_tokens)

    @property
    def seconds_in_model(self) -> float:
        return sum(call.seconds for call in self.calls)

    def to_json(self) -> str:
        """The whole trace as JSON; `from_json` reads it back."""
        record = dataclasses.asdict(self)
        record["summary"] = {
            "model_calls": self.model_calls,
            "tokens_per_call": self.tokens_per_call,
            "seconds_in_model": self.seconds_in_model,
            "checks_per_token": self.checks_per_token,
        }
        return json.dumps(record)

    @staticmethod
    def from_json(text: str) -> Trace:
        record = json.loads(text)
        record.pop("summary", None)
        record["calls"] = [Call(**call) for call in record["calls"]]
        record["steps"] = [Step(**step) for step in record["steps"]]
        return Trace(**record)
