"""What judges texts: functions, objects and reward models of the user's as `Scorer`s, checked before and after they are asked."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from treewright.core.errors import InputError, TreewrightError
from treewright.core.selection import Scorer
from treewright.models.loading import Loaded
from treewright.models.rewards import as_scorer


def scorers_of(target: Loaded, wanted: Mapping[str, str], given: Mapping[str, Any]) -> dict[str, Scorer]:
    """A `Scorer` for every role that is `wanted` (role to the method that asks). Raises InputError for a role that was not
    given or cannot judge, ModelError for a reward model that cannot be loaded."""
    for role, method in wanted.items():
        if role not in given:
            raise InputError(
                f"method '{method}' needs a judge for the role '{role}'; give models={{'{role}': f}}, where f(prompt, text) "
                f"is a number, or a reward model (--with {role}=FOLDER)"
            )
        if target.tokenizer is None:
            raise InputError(f"the role '{role}' judges texts but model '{target.name}' has no tokenizer; give one to load()")
    return {role: _Checked(role, as_scorer(role, given[role])) for role in wanted}


class _Checked:
    """A scorer whose answers are numbers, one for each text."""

    def __init__(self, role: str, scorer: Scorer) -> None:
        self._role, self._scorer = role, scorer

    def score(self, prompt: str, texts: Sequence[str]) -> list[float]:
        try:
            scores = [float(score) for score in self._scorer.score(prompt, texts)]
        except TreewrightError:
            raise
        except Exception as error:  # Whatever a function of the user's may raise.
            raise InputError(
                f"the role '{self._role}' failed on {len(texts)} texts, the first {texts[0][:60]!r} ({type(error).__name__}: "
                f"{error}); give f(prompt, text) that returns a number"
            ) from error
        if len(scores) != len(texts):
            raise InputError(
                f"the role '{self._role}' gave {len(scores)} scores for {len(texts)} texts; it must give one for each"
            )
        wrong = next((index for index, score in enumerate(scores) if math.isnan(score)), None)
        if wrong is not None:
            raise InputError(f"the role '{self._role}' gave nan for the text {texts[wrong][:60]!r}; a score must be a number")
        return scores
