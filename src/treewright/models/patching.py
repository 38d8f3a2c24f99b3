"""Forwards of transformers' own modules, changed for a while and for one thread.

The modules belong to the user's model, which other threads may be running: what is changed is changed for the thread that asked
for it, and one such change stands at a time, so that each finds and leaves the modules as they were.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

alone = threading.RLock()
"""Held by whoever changes modules, for the length of the forward."""


def in_this_thread(changed: Callable[..., Any], own: Callable[..., Any]) -> Callable[..., Any]:
    """`changed` where this thread calls it, `own` where another does."""
    ours = threading.get_ident()

    def chosen(*inputs: Any, **named: Any) -> Any:
        return (changed if threading.get_ident() == ours else own)(*inputs, **named)

    return chosen


@contextmanager
def replaced(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """For the length of the context, `module` computes `forward` in this thread. Enter it with `alone` held."""
    own = module.__dict__.get("forward")
    module.forward = in_this_thread(forward, module.forward)
    try:
        yield
    finally:
        del module.forward
        if own is not None:
            module.forward = own
