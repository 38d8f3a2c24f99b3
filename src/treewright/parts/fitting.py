"""Options that depend on the target's sizes, asked through `Parts.fits`."""

from __future__ import annotations

from collections.abc import Callable

from treewright.core.errors import UnknownOption
from treewright.core.session import Capabilities


def within_vocabulary(option: str, tokens: int) -> Callable[[Capabilities], None]:
    """A check for `Parts.fits`: an option that counts different tokens is no more than the model has. It raises UnknownOption."""

    def check(has: Capabilities) -> None:
        if tokens > has.vocabulary:
            raise UnknownOption(
                f"option '{option}' is {tokens}; allowed: an integer from 1 to {has.vocabulary}, the tokens that the model has"
            )

    return check


def known_token(option: str, token: int) -> Callable[[Capabilities], None]:
    """A check for `Parts.fits`: an option that names a token id names one that the model has. It raises UnknownOption."""

    def check(has: Capabilities) -> None:
        if token >= has.vocabulary:
            raise UnknownOption(f"option '{option}' is {token}; allowed: a token id from 0 to {has.vocabulary - 1}")

    return check
