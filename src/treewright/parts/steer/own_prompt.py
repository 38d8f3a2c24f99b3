"""What most steering shares: every model reads the user's own prompt."""

from __future__ import annotations

from collections.abc import Sequence


class OwnPrompt:
    """A base for steering that rewrites no prompt."""

    models: tuple[str, ...] = ()

    def prompt(self, model: str, prompt: Sequence[int]) -> Sequence[int]:
        return prompt
