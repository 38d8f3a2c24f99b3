"""Weights of linear layers laid out once, the way the processor multiplies them.

torch's linear layer in bfloat16 on a CPU arranges its weight anew in every call, which takes longer than the product wherever
few tokens are read: laid out beforehand, a layer takes 0.4 to 0.8 of the time for up to 64 tokens and gives the same bits, on
the processors that were tried (docs/log.md). The copy is as large as the weights, so it is made where that much is free.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar, TypeGuard
from weakref import WeakKeyDictionary

import torch
from torch import nn

from treewright.models.free_memory import free_bytes
from treewright.models.marks import Mark, mark

SHARE = 4
"""Weights are packed where their copies take at most one part in so many of the memory that is free."""
TYPICAL = 16
"""Tokens of a forward for which the layout is chosen; others are read with the same one."""

_active: dict[int, torch.Tensor] = {}
"""Copies that forwards which are running may read, by the id of their layer."""
_thread = threading.local()


class PackedLinear(nn.Linear):
    """The class of a packed layer while a forward of ours runs. It holds nothing of its own, so a copy or a pickle that another
    thread makes meanwhile is a linear layer like any other."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        copy = _active.get(id(self)) if getattr(_thread, "depth", 0) else None
        if copy is None or input.dtype != torch.bfloat16 or input.device.type != "cpu" or "bias" not in self._parameters:
            return super().forward(input)
        multiply = torch.ops.mkldnn._linear_pointwise.default
        result: torch.Tensor = multiply(input, copy, self._parameters["bias"], "none", [], "")
        return result


@dataclass(frozen=True, slots=True)
class _Copy:
    """A packed weight, and by what a change of the weight is noticed."""

    weight: torch.Tensor
    mark: Mark


class Packing:
    """The packed weights of a network; `running` is a context in which this thread's forwards read them.

    Only parameters of layers that are exactly `torch.nn.Linear` are packed: what an adapter, a quantizer, pruning or a hook of
    accelerate's put in a layer's place is left alone, and so is a network that its owner compiled. The network is never changed
    for longer than a forward, and for other threads its layers do what they always did. A copy lives as long as its layer and
    serves all who load the network. wanted: False for no packing.
    """

    _copies: ClassVar[WeakKeyDictionary[nn.Module, _Copy]] = WeakKeyDictionary()
    _packs, _swaps = threading.Lock(), threading.Lock()

    def __init__(self, network: nn.Module, wanted: bool = True) -> None:
        self._network, self._wanted = network, wanted
        self._layers: list[tuple[nn.Linear, _Copy]] = []
        self._turns: set[object] = set()
        self.refresh()

    @torch.inference_mode()
    def refresh(self) -> None:
        """Packs layers that are new or whose weights have changed, all of them or, where memory is short, none.

        Called before a decode, not before a forward. Cost: reading the weights once. What is not seen is a change through
        `weight.data`, which torch does not count, that keeps the sum of a weight's bits and the numbers that are compared.
        """
        if not self._wanted:
            return
        with self._packs:
            compiled = any(getattr(module, "_compiled_call_impl", None) is not None for module in self._network.modules())
            layers = [module for module in self._network.modules() if not compiled and _can_be_packed(module)]
            marks = {layer: mark(layer.weight) for layer in layers}
            fresh = [layer for layer in layers if (known := self._copies.get(layer)) is None or known.mark != marks[layer]]
            for layer in fresh:
                self._copies.pop(layer, None)
            free = free_bytes(torch.device("cpu")) if fresh else 0
            if free is None or sum(layer.weight.nbytes for layer in fresh) > free // SHARE:
                fresh, layers = [], [layer for layer in layers if layer in self._copies]
            for layer in fresh:
                packed = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach(), TYPICAL)
                self._copies[layer] = _Copy(packed, marks[layer])
            self._layers = [(layer, self._copies[layer]) for layer in layers]

    @contextmanager
    def running(self) -> Iterator[None]:
        """Without autograd, for packed layers know no gradients."""
        if not self._layers:
            yield
            return
        turn, depth = object(), getattr(_thread, "depth", 0)
        try:
            self._enter(turn)
            _thread.depth = depth + 1
            yield
        finally:
            _thread.depth = depth
            self._leave(turn)

    def _enter(self, turn: object) -> None:
        with self._swaps:
            self._turns.add(turn)
            for layer, copy in self._layers:
                # Past nn.Module.__setattr__, which takes 20 times as long.
                object.__setattr__(layer, "__class__", PackedLinear)
                _active[id(layer)] = copy.weight

    def _leave(self, turn: object) -> None:
        with self._swaps:
            self._turns.discard(turn)
            if not self._turns:
                for layer, _ in self._layers:
                    object.__setattr__(layer, "__class__", nn.Linear)
                    _active.pop(id(layer), None)


def _can_be_packed(module: nn.Module) -> TypeGuard[nn.Linear]:
    if type(module) not in (nn.Linear, PackedLinear) or "forward" in module.__dict__:
        return False
    weight = module._parameters.get("weight")
    if type(weight) is not nn.Parameter or "bias" not in module._parameters or not _has_kernels():
        return False
    kind = weight.device.type == "cpu" and weight.dtype == torch.bfloat16
    return kind and weight.layout == torch.strided and weight.is_contiguous() and weight.numel() > 0


def _has_kernels() -> bool:
    mkldnn = torch.backends.mkldnn
    return bool(mkldnn.is_available() and mkldnn.enabled and torch.ops.mkldnn._is_mkldnn_bf16_supported())  # type: ignore[attr-defined]
