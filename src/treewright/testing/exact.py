"""A model in whose arithmetic equality of tokens can be asked for."""

from __future__ import annotations

import copy
from dataclasses import replace

from treewright.core.equality import EXACT_DTYPES
from treewright.models.loading import Loaded, load


def exact_copy(model: Loaded) -> Loaded:
    """The model with memories of its own; in float32 where it is in a 16-bit type."""
    if getattr(model.model, "dtype", EXACT_DTYPES[0]) in EXACT_DTYPES:
        return replace(model, memories={})
    return replace(load(copy.deepcopy(model.model).float(), model.tokenizer), name=model.name)
