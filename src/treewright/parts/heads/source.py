"""Where a method's heads come from: a file that was checked, or untrained ones made to the target's sizes."""

from __future__ import annotations

import torch

from treewright.core.errors import CapabilityError
from treewright.core.session import Capabilities
from treewright.parts.heads.medusa_file import Choices, HeadsFile, open_heads
from treewright.parts.heads.medusa_heads import MedusaHeads

RANDOM = "random"
RANDOM_HEADS = 4
RANDOM_SEED = 0


class HeadsSource:
    """Heads by name. The file is found and its keys are checked at once; weights are read when they are asked for."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._file: HeadsFile | None = None if name == RANDOM else open_heads(name)

    @property
    def heads(self) -> int:
        """How many heads there are."""
        return RANDOM_HEADS if self._file is None else self._file.heads

    @property
    def version(self) -> int:
        """When the file was written, in nanoseconds; 0 for untrained heads."""
        return 0 if self._file is None else self._file.version

    @property
    def choices(self) -> Choices:
        """The rank paths that were measured for these heads, best first; () where none were."""
        return () if self._file is None else self._file.choices

    def fits(self, capabilities: Capabilities) -> None:
        """Raises CapabilityError where the heads are for a model of another hidden size or vocabulary."""
        self._check(capabilities.hidden_size, capabilities.vocabulary)

    def _check(self, hidden_size: int, vocabulary: int) -> None:
        file = self._file
        if file is not None and (file.hidden_size, file.vocabulary) != (hidden_size, vocabulary):
            raise CapabilityError(
                f"heads '{self._name}' are for a model of hidden size {file.hidden_size} and {file.vocabulary} tokens, and the "
                f"target has {hidden_size} and {vocabulary}; train heads for it with `treewright train medusa --model MODEL`"
            )

    def load(self, states: torch.Tensor, vocabulary: int) -> MedusaHeads:
        """The heads in the dtype and on the device of states [..., H]. Costs one reading of the file."""
        self._check(states.shape[-1], vocabulary)
        if self._file is not None:
            return self._file.load(states.device, states.dtype)
        return random_heads(states.shape[-1], vocabulary).to(device=states.device, dtype=states.dtype)


def random_heads(hidden_size: int, vocabulary: int) -> MedusaHeads:
    """Untrained heads with every weight drawn from a normal law of variance 1 / hidden_size; the same ones every time."""
    with torch.device("meta"):  # Nothing is initialised there, so torch's own random numbers are left alone.
        heads = MedusaHeads(hidden_size, vocabulary, RANDOM_HEADS).requires_grad_(False)
    heads.to_empty(device="cpu")
    generator = torch.Generator().manual_seed(RANDOM_SEED)
    for weight in heads.parameters():
        weight.normal_(std=hidden_size**-0.5, generator=generator)
    return heads
