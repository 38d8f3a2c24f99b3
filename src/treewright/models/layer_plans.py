"""Running a part of a transformers model's layers, for the length of a forward.

Layers are the entries of the one module list that is as long as the model is deep. In each, the attention and the feed-forward
part are found by what their classes are called, and the norm before the attention by what its input is. Whether leaving parts
out means what it should is asked of the model at load time: a model that fails has no `layers`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from treewright.core.layers import LayerPlan
from treewright.models.patching import alone, in_this_thread, replaced

FEED_FORWARD = ("MLP", "Mlp", "MoE", "Moe", "FeedForward", "FFN")


@dataclass(frozen=True, slots=True)
class LayerParts:
    """One layer: its attention, its feed-forward part, what the attention's input goes through first, and how many results
    each of the two parts gives."""

    layer: nn.Module
    attention: nn.Module
    mlp: nn.Module
    norm: nn.Module
    results: tuple[int, int]


class Layers:
    """The layers of a model. `running` is a context in which forwards follow a plan."""

    def __init__(self, parts: Sequence[LayerParts]) -> None:
        self._parts = parts

    def __len__(self) -> int:
        return len(self._parts)

    @contextmanager
    def running(self, plans: Sequence[LayerPlan]) -> Iterator[None]:
        """plans: one for all rows, or one for each. A part that no row runs costs nothing; one that only some rows run is
        computed for all and left out of the others. Forwards of other threads are the whole model's."""
        with alone, ExitStack() as stack:
            for number, parts in enumerate(self._parts):
                attention = [number in plan.attention for plan in plans]
                mlp = [number in plan.mlp for plan in plans]
                if not any(attention) and not any(mlp):
                    stack.enter_context(replaced(parts.layer, _pass_on))
                    continue
                for module, rows, results in zip((parts.attention, parts.mlp), (attention, mlp), parts.results, strict=True):
                    if not all(rows):
                        stack.enter_context(replaced(module, _only(module, rows, results)))
            if plans[0].group > 1:
                stack.enter_context(self._side_by_side(plans[0].group))
            yield

    @contextmanager
    def _side_by_side(self, group: int) -> Iterator[None]:
        """The attention of the layers of each group reads what the first of them reads; feed-forward parts stay in order."""
        entered: list[torch.Tensor] = [torch.empty(0)]

        def enter(module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
            entered[0] = _first_input(inputs, named)

        with ExitStack() as stack:
            for number, parts in enumerate(self._parts):
                if number % group == 0:
                    hook = parts.layer.register_forward_pre_hook(in_this_thread(enter, _not_heard), with_kwargs=True)
                    stack.callback(hook.remove)
                else:
                    stack.enter_context(replaced(parts.attention, _reading(parts, entered)))
            yield


def _reading(parts: LayerParts, entered: list[torch.Tensor]) -> Callable[..., Any]:
    forward = parts.attention.forward

    def read(*inputs: Any, **named: Any) -> Any:
        states = parts.norm(entered[0])
        return forward(**(named | {"hidden_states": states})) if not inputs else forward(states, *inputs[1:], **named)

    return read


def _only(module: nn.Module, rows: Sequence[bool], results: int) -> Callable[..., Any]:
    """The module's forward with zeros for the rows that do not run it; none at all where no row does. Gives `results`."""
    forward = module.forward

    def run(*inputs: Any, **named: Any) -> Any:
        if not any(rows):
            nothing = torch.zeros_like(_first_input(inputs, named))
            return nothing if results == 1 else (nothing, *[None] * (results - 1))
        result = forward(*inputs, **named)
        output = result[0] if isinstance(result, tuple) else result
        kept = torch.tensor(rows, device=output.device)[:, None, None]
        output = torch.where(kept, output, torch.zeros_like(output))
        return (output, *result[1:]) if isinstance(result, tuple) else output

    return run


def _not_heard(*inputs: Any) -> None: ...


def _pass_on(*inputs: Any, **named: Any) -> torch.Tensor:
    return _first_input(inputs, named)


def _first_input(inputs: tuple[Any, ...], named: dict[str, Any]) -> torch.Tensor:
    found = inputs[0] if inputs else named["hidden_states"]
    assert isinstance(found, torch.Tensor)
    return found


@torch.inference_mode()
def find_layers(model: PreTrainedModel) -> Layers | None:
    """The layers of a model, None where they cannot be told apart or leaving parts out does not do what it should. Cost: three
    forwards of two tokens."""
    depth = int(model.config.get_text_config().num_hidden_layers)
    lists = [one for one in model.modules() if isinstance(one, nn.ModuleList) and len(one) == depth]
    found = [_find_parts(layer) for layer in lists[0]] if len(lists) == 1 else []
    if not found or None in found:
        return None
    ids = torch.tensor([[0, 1]], device=model.device)
    watch = _Watch(model, [parts[0] for parts in found if parts is not None])
    with watch.hooked():
        plain = model(input_ids=ids, use_cache=False).logits
    if len(watch.norms) != depth or any(watch.results.get(layer, 1) != 1 for layer in lists[0]):
        return None
    layers = Layers([
        LayerParts(layer, *parts, norm, (watch.results.get(parts[0], 1), watch.results.get(parts[1], 1)))
        for layer, parts, norm in zip(lists[0], found, watch.norms, strict=True) if parts is not None
    ])  # fmt: skip
    return layers if _follows(model, ids, layers, plain) else None


def _find_parts(layer: nn.Module) -> tuple[nn.Module, nn.Module] | None:
    attention = [part for part in layer.children() if "Attention" in type(part).__name__]
    mlp = [part for part in layer.children() if any(name in type(part).__name__ for name in FEED_FORWARD)]
    return (attention[0], mlp[0]) if len(attention) == len(mlp) == 1 else None


class _Watch:
    """One forward seen from inside. norms: for each attention, the norm whose output it reads (Identity where there is none).
    results: how many results a module gives, where it gives a tuple."""

    def __init__(self, model: PreTrainedModel, attention: Sequence[nn.Module]) -> None:
        self._model, self._attention = model, attention
        self._kept: list[tuple[torch.Tensor, nn.Module]] = []
        self.norms: list[nn.Module] = []
        self.results: dict[nn.Module, int] = {}

    @contextmanager
    def hooked(self) -> Iterator[None]:
        hooks = [module.register_forward_hook(self._wrote) for module in self._model.modules()]
        hooks += [module.register_forward_pre_hook(self._reads, with_kwargs=True) for module in self._attention]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _wrote(self, module: nn.Module, inputs: Any, result: Any) -> None:
        if isinstance(result, torch.Tensor):
            self._kept.append((result, module))
        elif isinstance(result, tuple):
            self.results[module] = len(result)

    def _reads(self, module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        read = _first_input(inputs, named)
        sources = [source for output, source in self._kept if output is read and "Norm" in type(source).__name__]
        self.norms.append(sources[-1] if sources else nn.Identity())


def _follows(model: PreTrainedModel, ids: torch.Tensor, layers: Layers, plain: torch.Tensor) -> bool:
    """Whether a layer without its parts passes its input on, for one row as for all, and leaving it out changes something."""
    depth, rows = len(layers), ids.expand(2, -1)

    def logits(*plans: LayerPlan) -> torch.Tensor:
        with layers.running(plans):
            return model(input_ids=rows[: len(plans)], use_cache=False).logits

    whole, without = LayerPlan.whole(depth), LayerPlan.without(depth, {0}, {0})
    passed = logits(without)
    # Row 1 keeps layer 0, so its parts are computed and left out of row 0 alone.
    mixed = logits(without, whole)
    return _close(mixed[0], passed[0]) and _close(mixed[1], plain[0]) and not torch.equal(passed, plain)


def _close(found: torch.Tensor, expected: torch.Tensor) -> bool:
    tolerance = {torch.float64: 1e-9, torch.float32: 1e-4}.get(expected.dtype, 0.05)
    return bool((found.double() - expected.double()).abs().max() <= tolerance * expected.double().std())
