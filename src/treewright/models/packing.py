"""Weights of linear layers laid out once, the way the processor multiplies them.

torch's linear layer in bfloat16 on a CPU arranges its weight anew in every call, which takes longer than the product wherever
few tokens are read: laid out beforehand, a layer takes 0.4 to 0.8 of the time for up to 64 tokens (docs/log.md) and gives the
same bits. The copy is as large as the weights, so it is made where that much is free.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, TypeGuard
from weakref import WeakKeyDictionary, ref

import numpy as np
import torch
from torch import nn

from treewright.models.free_memory import free_bytes
from treewright.ops.bits import integers

SHARE = 4
"""Weights are packed where their copy takes at most one part in so many of the memory that is free."""
TYPICAL = 16
"""Tokens of a forward for which the layout is chosen; others are read with the same one."""
SAMPLED = 16
"""Numbers of a weight by which a change is noticed that torch does not count, one through `weight.data`."""


@dataclass(frozen=True, slots=True)
class _Packed:
    """One layer: its weight and bias, by what a change of them is noticed, and the forward that reads the copy. sampled: a few
    of the weight's numbers, read where they lie."""

    weight: torch.Tensor
    bias: torch.Tensor | None
    mark: tuple[int, int]
    sampled: np.ndarray
    was: np.ndarray
    forward: Callable[[torch.Tensor], torch.Tensor]

    def holds(self, layer: nn.Linear) -> bool:
        """Whether the layer is still the one that was packed."""
        own = layer._parameters
        same = own["weight"] is self.weight and own["bias"] is self.bias and _mark(self.weight) == self.mark
        return same and np.array_equal(self.sampled, self.was)


class Packing:
    """The packed weights of a network; `running` is a context in which this thread's forwards read them. wanted: whether there
    may be any.

    Only layers that are exactly `torch.nn.Linear` take part: what an adapter, a quantizer or a hook put in place of a layer's
    forward is left alone. The network itself is never changed for longer than a forward, nor for other threads.
    """

    _known: ClassVar[WeakKeyDictionary[nn.Module, Packing]] = WeakKeyDictionary()

    def __init__(self, network: nn.Module) -> None:
        # Weakly, for it is the key under which this object is kept.
        self._network = ref(network)
        self.wanted = True
        self._packed: dict[nn.Linear, _Packed] = {}
        self._threads: Counter[int] = Counter()
        self._changed: list[tuple[dict[str, Any], _Packed]] = []
        self._turn = threading.Lock()

    @classmethod
    def of(cls, network: nn.Module) -> Packing:
        """The one packing of a network, whoever asks: two would hold two copies and take turns at its layers."""
        return cls._known.setdefault(network, cls(network))

    @torch.inference_mode()
    def refresh(self) -> None:
        """Packs layers that are new or whose weights have changed, all of them or, where memory is short, none.

        Called before a decode, not before a forward. Cost: 15 microseconds a layer where nothing changed.
        """
        network = self._network()
        assert network is not None, "the model that asks holds it"
        modules = network.modules() if self.wanted else ()
        layers = [module for module in modules if _can_be_packed(module, self._packed)]
        kept = {layer: known for layer in layers if (known := self._packed.get(layer)) is not None and known.holds(layer)}
        fresh = [layer for layer in layers if layer not in kept]
        self._packed = kept
        free = free_bytes(torch.device("cpu")) if fresh else None
        if free is None or sum(layer.weight.nbytes for layer in fresh) <= free // SHARE:
            self._packed = kept | {layer: self._pack(layer) for layer in fresh}

    def _pack(self, layer: nn.Linear) -> _Packed:
        weight, bias, threads, own = layer.weight, layer.bias, self._threads, nn.Linear.forward.__get__(layer)
        packed, multiply = torch.ops.mkldnn._reorder_linear_weight(weight, TYPICAL), torch.ops.mkldnn._linear_pointwise.default

        def forward(states: torch.Tensor) -> torch.Tensor:
            ours = threading.get_ident() in threads and states.dtype == torch.bfloat16
            result: torch.Tensor = multiply(states, packed, bias, "none", [], "") if ours else own(states)
            return result

        sampled = _sampled(weight)
        return _Packed(weight, bias, _mark(weight), sampled, sampled.copy(), forward)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Without autograd, for packed layers know no gradients."""
        if not self._packed:
            yield
            return
        thread = threading.get_ident()
        self._enter(thread)
        try:
            yield
        finally:
            self._leave(thread)

    def _enter(self, thread: int) -> None:
        with self._turn:
            if not self._threads:
                for layer, packed in self._packed.items():
                    # Past nn.Module.__setattr__, which takes 20 times as long.
                    if "forward" not in (own := layer.__dict__):
                        own["forward"] = packed.forward
                        self._changed.append((own, packed))
            self._threads[thread] += 1

    def _leave(self, thread: int) -> None:
        with self._turn:
            self._threads[thread] -= 1
            if not self._threads[thread]:
                del self._threads[thread]
            if not self._threads:
                for own, packed in self._changed:
                    if own.get("forward") is packed.forward:
                        del own["forward"]
                self._changed.clear()


def _can_be_packed(module: nn.Module, packed: Mapping[nn.Linear, _Packed]) -> TypeGuard[nn.Linear]:
    if type(module) is not nn.Linear:
        return False
    own, known, weight = module.__dict__.get("forward"), packed.get(module), module.weight
    if own is not None and (known is None or own is not known.forward):
        return False
    plain = type(weight) in (nn.Parameter, torch.Tensor) and weight.is_contiguous()
    return plain and weight.device.type == "cpu" and weight.dtype == torch.bfloat16 and _has_kernels()


def _has_kernels() -> bool:
    return bool(torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _mark(weight: torch.Tensor) -> tuple[int, int]:
    return weight.data_ptr(), -1 if weight.is_inference() else weight._version


def _sampled(weight: torch.Tensor) -> np.ndarray:
    flat = weight.detach().view(integers(weight.dtype)).view(-1)
    return flat[:: max(1, len(flat) // SAMPLED)].numpy()
